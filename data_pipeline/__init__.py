"""Offline work: AnnData files → corpus on disk, corpus → tokenizer."""
