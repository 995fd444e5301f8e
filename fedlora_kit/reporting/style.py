"""One look for every figure: colours fixed per method, files that are equal byte for byte when the numbers
are.

The palette is Okabe and Ito's, safe for the common colour-vision deficiencies. A method keeps its colour in
every figure, so a reader learns it once; each also has a marker of its own, for print in grey.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlora_kit.experiments import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FIXED: dict[str, tuple[str, str]] = {
    "lora": ("#0072B2", "o"),
    "ffa-lora": ("#D55E00", "s"),
    "fedlora-optimizer": ("#009E73", "^"),
    "fed-hello": ("#CC79A7", "D"),
    "full fine-tuning": ("#555555", "X"),
    "fedra": ("#009E73", "P"),
    "hetlora": ("#E69F00", "v"),
    "exclusive": ("#56B4E9", "<"),
    "flexlora": ("#8C6D1F", ">"),
    "straggler": ("#D55E00", "p"),
}
_ALIASES = {
    "fedit": "lora",
    "fedavg": "lora",
    "fedavg-lora": "lora",
    "ffa": "ffa-lora",
    "fed-hetlora": "fed-hello",
    "fedhello": "fed-hello",
    "full": "full fine-tuning",
    "full-ft": "full fine-tuning",
}
_FALLBACK: tuple[tuple[str, str], ...] = (
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#8C6D1F", "<"),
    ("#7B3294", ">"),
    ("#117733", "p"),
    ("#882255", "h"),
)


def _look(method: str) -> tuple[str, str]:
    name = method.strip().lower().replace("_", "-")
    name = _ALIASES.get(name, name)
    if name in _FIXED:
        return _FIXED[name]
    # By hash, not by order of first use: the colour of a new method is the same in every notebook.
    return _FALLBACK[int(hashlib.sha256(name.encode()).hexdigest(), 16) % len(_FALLBACK)]


def method_colour(method: str) -> str:
    """The colour of a method in every figure, as ``#rrggbb``; unknown names get a stable one."""
    return _look(method)[0]


def method_marker(method: str) -> str:
    """The matplotlib marker of a method, so that lines can be told apart without colour."""
    return _look(method)[1]


def palette(methods: list[str]) -> dict[str, str]:
    """Method name → colour, in the form seaborn's ``palette=`` takes."""
    return {method: method_colour(method) for method in methods}


def set_style() -> None:
    """Set the kit's seaborn and matplotlib style for the figures made after this call."""
    import matplotlib as mpl
    import seaborn as sns
    from matplotlib import pyplot

    # Loads the backend now: a notebook shows a Figure made without pyplot only when that has happened.
    pyplot.switch_backend(pyplot.get_backend())
    sns.set_theme(
        context="notebook", style="ticks", palette=list(dict.fromkeys(c for c, _ in _FIXED.values()))
    )
    mpl.rcParams.update(
        {
            "figure.figsize": (6.4, 4.0),
            "figure.dpi": 110,
            "savefig.dpi": 160,
            "savefig.bbox": "tight",
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.titleweight": "bold",
            "axes.titlesize": 11,
            "axes.labelsize": 10,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 9,
            "legend.frameon": False,
            "grid.color": "#e3e3e3",
            "grid.linewidth": 0.7,
            "lines.linewidth": 1.8,
            "font.family": ["DejaVu Sans"],  # ships with matplotlib: the same on every machine
        }
    )


def save(fig: Figure, folder: Path, stem: str = "figure") -> tuple[Path, Path]:
    """Write ``<stem>.svg`` and ``<stem>.png`` into ``folder``, atomically; the paths of both.

    The files carry no date and no random ids: the same figure gives the same bytes.
    """
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[Any, Any] = {"svg.hashsalt": "fedlora-kit", "svg.fonttype": "path"}
    paths = []
    with mpl.rc_context(settings):
        for kind, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
            buffer = io.BytesIO()
            fig.savefig(buffer, format=kind, bbox_inches="tight", facecolor="white", metadata=metadata)
            path = folder / f"{stem}.{kind}"
            atomic.write_bytes(path, buffer.getvalue())
            paths.append(path)
    return paths[0], paths[1]
