"""What is in a corpus: counts, labels, texts, the tasks it supports, sample prompts, token lengths."""

from data_pipeline.describe.description import Description, describe

__all__ = ["Description", "describe"]
