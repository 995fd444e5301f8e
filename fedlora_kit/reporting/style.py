"""One style for every figure, and files that are equal byte for byte when the numbers are.

Colours, markers and line styles of methods come from `looks`; sizes are those of a printed column, so that a
figure goes into LaTeX as it is, with letters of 7 to 8 points.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlora_kit import looks, paths
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments import atomic
from fedlora_kit.looks import DOUBLE as DOUBLE
from fedlora_kit.looks import SINGLE as SINGLE
from fedlora_kit.study.bands import mean_band as mean_band

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def set_style() -> None:
    """Set the kit's seaborn and matplotlib style for the figures made after this call.

    It starts from matplotlib's defaults, all but the backend: a ``matplotlibrc`` of the machine has no say.
    What the reader wants otherwise stands in the file that ``FEDLORA_STYLE`` names, and comes last.

    Raises:
        FedloraError: as `own_settings`.
    """
    import matplotlib as mpl
    import seaborn as sns
    from matplotlib import pyplot

    # Loads the backend now: a notebook shows a Figure made without pyplot only when that has happened.
    pyplot.switch_backend(pyplot.get_backend())
    mpl.rcdefaults()
    sns.set_theme(context="notebook", style="ticks", palette=list(looks.SERIES))
    sheet = Path(__file__).with_name("figures.mplstyle")
    mpl.rcParams.update(mpl.rc_params_from_file(sheet, use_default_template=False))
    mpl.rcParams["figure.figsize"] = (SINGLE, 2.5)
    mpl.rcParams.update(own_settings())


def own_settings() -> dict[Any, Any]:
    """What the file that ``FEDLORA_STYLE`` names sets; empty without one.

    Raises:
        FedloraError: it cannot be read, or holds what matplotlib does not know.
    """
    import matplotlib as mpl

    if (path := paths.style_file()) is None:
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[0].strip() for line in lines if line.partition("#")[0].strip()]
        if unknown := [name for name in names if name not in mpl.rcParams]:
            raise ValueError(f"unknown to matplotlib: {', '.join(unknown)}")
        return dict(mpl.rc_params_from_file(path, True, use_default_template=False))
    except (OSError, ValueError) as error:
        remedy = "write one 'name: value' a line, as in docs/figures.md, or unset FEDLORA_STYLE"
        raise FedloraError(f"FEDLORA_STYLE names {path}: {error}", remedy) from error


def save(fig: Figure, folder: Path, stem: str = "figure") -> tuple[Path, Path, Path]:
    """Write ``<stem>.pdf``, ``<stem>.svg`` and ``<stem>.png`` into ``folder``, atomically; their paths.

    The size is the figure's own, uncropped: a figure `SINGLE` inches wide fits one column. The files carry no
    date and no random ids: the same figure gives the same bytes.
    """
    import matplotlib as mpl

    settings = {"svg.hashsalt": "fedlora-kit", "svg.fonttype": "path", "savefig.bbox": None, **own_settings()}
    nobody: dict[str, dict[str, Any]] = {
        "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
        "svg": {"Date": None, "Creator": None},
        "png": {"Software": None},
    }
    paths = []
    with mpl.rc_context(settings):
        for kind, metadata in nobody.items():
            buffer = io.BytesIO()
            fig.savefig(buffer, format=kind, facecolor="white", metadata=metadata)
            path = folder / f"{stem}.{kind}"
            atomic.write_bytes(path, buffer.getvalue())
            paths.append(path)
    return paths[0], paths[1], paths[2]
