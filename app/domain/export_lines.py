"""The three lines that turn a network into a file Prunescope reads, in one place for everybody."""

from __future__ import annotations

EXPORT_LINES = (
    "import torch",
    "program = torch.export.export("
    "model.eval(), (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},))",
    'torch.export.save(program, "model.pt2")',
)

EXPORT_NOTE = (
    "`example` is one batch of at least two samples. A network with several inputs gets them all, "
    "(a, b), and one {0: torch.export.Dim.AUTO} for each."
)


def export_hint(lead: str = "Export the network with") -> str:
    """`lead`, then the three lines, each on a line of its own."""
    return "\n".join([f"{lead}:", *EXPORT_LINES])
