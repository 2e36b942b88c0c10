"""Image → verdict, on ONNX Runtime and without torch."""

from castnet.line.inspector import Inspector, Verdict

__all__ = ["Inspector", "Verdict"]
