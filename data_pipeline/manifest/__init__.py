"""Many data sets and their settings in one file."""

from data_pipeline.manifest.load import (
    Manifest,
    ManifestError,
    build_options,
    load_manifest,
    make_sources,
    read_manifest,
)

__all__ = ["Manifest", "ManifestError", "build_options", "load_manifest", "make_sources", "read_manifest"]
