"""Tiny random models and data for tests: every architecture, seeded (see `fedlora_kit.conformance.tiny`)."""

from __future__ import annotations

import transformers

from fedlora_kit.conformance.tiny import ARCHITECTURES, backbone, data, federation, image_data, text_data

transformers.utils.logging.set_verbosity_error()
__all__ = ["ARCHITECTURES", "backbone", "data", "federation", "image_data", "text_data"]
