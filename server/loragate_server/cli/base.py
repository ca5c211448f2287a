"""`loragate-server base`: the base models that adapters are audited on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from loragate_server.cli.group import Group
from loragate_server.cli.options import (
    EXIT_FOUND_WRONG,
    EXIT_USAGE,
    ConfigOption,
    StateOption,
    fail,
    failures,
    load,
)
from loragate_server.config.schema import BaseModelEntry, Config, StartError

base = Group(no_args_is_help=True, help="The base models.")

Dtype = Literal["float32", "float16", "bfloat16"]

NEXT = (
    "next: a library of your own, as the embedded one is of emoji: `loragate-server concepts "
    "init FOLDER --no-bank`, a line `library: FOLDER` in the configuration, `concepts add`, "
    "`concepts bank --make 64`; then `calibrate --train 150 --learned 40`"
)


@base.command("add")
def add_base(
    name: Annotated[str, typer.Argument(help="Name by which requests know it, such as sdxl.")],
    folder: Annotated[
        Path,
        typer.Option(
            "--from", help="Folder in diffusers layout, with model_index.json.", show_default=False
        ),
    ],
    device: Annotated[
        str, typer.Option(help="cpu, cuda or cuda:1. Default: a GPU where there is one.")
    ] = "",
    dtype: Annotated[
        Dtype | None,
        typer.Option(help="Of its weights. Default: float32 on a CPU, half of that on a GPU."),
    ] = None,
    try_it: Annotated[
        bool,
        typer.Option("--load/--no-load", help="Load it once, as the server would. Takes memory."),
    ] = True,
    config: ConfigOption = None,
) -> None:
    """Checks a folder and adds it to the base models of a configuration file.

    With --config (or LORAGATE_CONFIG) the file gets the lines, or is made; without, they are
    printed. The first base model that a file names takes the place of the embedded one.

    [bold]Examples[/bold]

      loragate-server base add sdxl --from /models/sdxl --config /etc/loragate.yaml

      loragate-server base add flux --from /models/flux --device cuda --dtype bfloat16
    """
    known = load(config if config is not None and config.exists() else None)
    if config is not None and any(one.name == name for one in _configured(known, config)):
        fail(f"{config} has a base model {name!r}; choose another name, or edit it", EXIT_USAGE)
    parent = None if config is None else config.absolute().parent
    if config and parent and not (parent.is_dir() and os.access(parent, os.W_OK)):
        fail(
            f"{config.parent} is no folder that can be written; make it, or name another file",
            EXIT_USAGE,
        )
    from loragate_server.app.editing import add_base_model, section_of
    from loragate_server.app.gpu import gpu_present
    from loragate_server.app.startup import load_base, quiet_libraries
    from loragate_server.models.folder import look_at
    from loragate_server.models.loading import BaseModelError

    try:
        seen = look_at(folder.expanduser().absolute())
    except BaseModelError as error:
        fail(str(error), EXIT_FOUND_WRONG)
    where = device or ("cuda" if gpu_present() else "cpu")
    half: Dtype = "float16" if seen.family in ("sd", "sdxl") else "bfloat16"
    entry = _entry(name, seen.folder, where, dtype or (half if where != "cpu" else "float32"))
    typer.echo(
        f"{seen.folder}: {seen.pipeline} (family {seen.family}), {', '.join(seen.parts)}; "
        f"{seen.numbers / 1e6:.0f} million parameters in the denoiser as {seen.dtype}, "
        f"{seen.weights_bytes / 1e9:.2f} GB of weights",
        err=True,
    )
    if try_it:
        quiet_libraries()
        with failures():
            load_base(entry)
        typer.echo(f"loaded on {entry.device} as {entry.dtype}", err=True)
    lines = {"name": name, "folder": str(seen.folder), "device": where, "dtype": entry.dtype}
    if config is None:
        typer.echo("Add this to the configuration file, or name one with --config:\n", err=True)
        typer.echo(section_of(lines), nl=False)
    else:
        with failures():
            add_base_model(config, lines)
        typer.echo(f"{config}: base model {name}")
    typer.echo(NEXT, err=True)


@base.command("list")
def list_bases(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Lists the configured base models, what their folders hold, and whether they are calibrated.

    Exits with 1 where one cannot be used, and says why.

    [bold]Example[/bold]

      loragate-server base list --config /etc/loragate.yaml
    """
    wanted = load(config, {"state_dir": state_dir})
    found = [_facts(wanted, entry) for entry in wanted.base_models]
    if as_json:
        for one in found:
            typer.echo(json.dumps(one, ensure_ascii=False))
    else:
        columns = ("name", "family", "parameters", "weights", "device", "dtype", "calibration")
        table = Table(*columns, box=None)
        table.columns[-1].overflow = "fold"  # a path, or a reason, that is cut short says nothing
        for one in found:
            why = f" (does not fit: {one['misfit']})" if one["misfit"] else ""
            table.add_row(*(one[name] + (why if name == "calibration" else "") for name in columns))
        Console().print(table)
    wrong = [one for one in found if one["problem"]]
    for one in wrong:
        typer.echo(f"base model {one['name']}: {one['problem']}", err=True)
    if wrong:
        raise typer.Exit(EXIT_FOUND_WRONG)


def _configured(config: Config, file: Path) -> tuple[BaseModelEntry, ...]:
    """Those that a file names; none where it leaves the embedded one in force."""
    named = "base_models" in config.model_fields_set
    return config.base_models if named and file.exists() else ()


def _entry(name: str, folder: Path, device: str, dtype: Dtype) -> BaseModelEntry:
    try:
        return BaseModelEntry(name=name, folder=folder, device=device, dtype=dtype)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"])
        fail(f"{field} {fault['input']!r}: {fault['msg']}", EXIT_USAGE)


def _facts(config: Config, entry: BaseModelEntry) -> dict[str, str]:
    from loragate_server.app.calibrating import calibration_file
    from loragate_server.models.folder import look_at
    from loragate_server.models.loading import BaseModelError

    file = calibration_file(config, entry.name)
    facts = {
        "name": entry.name,
        "family": "",
        "parameters": "",
        "weights": "",
        "device": entry.device,
        "dtype": entry.dtype,
        "calibration": str(file) if file is not None and file.exists() else "none",
        "misfit": _misfit(config, file),
        "folder": str(entry.folder),
        "problem": "",
    }
    try:
        seen = look_at(entry.folder.expanduser())
    except BaseModelError as error:
        return facts | {"problem": str(error)}
    return facts | {
        "family": seen.family,
        "parameters": f"{seen.numbers / 1e6:.1f} M",
        "weights": f"{seen.weights_bytes / 1e9:.2f} GB",
    }


def _misfit(config: Config, file: Path | None) -> str:
    """Why a calibration does not fit; nothing where the library cannot be read, as others tell."""
    if file is None or not file.exists():
        return ""
    from loragate_server.app.fitting import misfit
    from loragate_server.app.folders import open_library

    try:
        return misfit(file, open_library(config.library_folder))
    except StartError:
        return ""
