"""Batch → logits."""

from castnet.model.classifier import CastingClassifier

__all__ = ["CastingClassifier"]
