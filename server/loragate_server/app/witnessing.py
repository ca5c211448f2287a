"""The tree of the log, and the witness for those of others, made from the configuration."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from loragate_server.config.schema import Config, StartError
from loragate_server.record.signing.keys import KeyUnusableError
from loragate_server.record.tree.keeper import CheckpointKeeper
from loragate_server.record.tree.signer import NoteSigner, read_note_key
from loragate_server.record.tree.tree import TreeError
from loragate_server.record.tree.witness import Witness, WitnessError
from loragate_server.web.server import WebServer
from loragate_server.web.witness import WitnessDoor


def open_keeper(config: Config) -> CheckpointKeeper | None:
    """The keeper of the log's tree; None where none is wanted.

    Raises:
        StartError: a key cannot be used, or the tree is damaged.
    """
    if not config.checkpoints.enabled:
        return None
    try:
        return CheckpointKeeper(config.checkpoints, config.signing, config.tree_folder)
    except (KeyUnusableError, TreeError) as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(f"{config.tree_folder} cannot be read: {error.strerror}") from error


async def open_witness(config: Config, web: WebServer, stack: AsyncExitStack) -> None:
    """Signs checkpoints of others on the HTTP port, where that is configured.

    Raises:
        StartError: a key or the witness's memory cannot be used.
    """
    if config.witness.key is None:
        return
    try:
        witness = await asyncio.to_thread(make_witness, config)
    except (KeyUnusableError, WitnessError) as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(f"witness: {error.filename}: {error.strerror}") from error
    stack.callback(witness.close)

    def add(body: bytes) -> tuple[int, str, str]:
        answer = witness.add(body)
        return answer.status, answer.content_type, answer.body

    web.mount_witness(WitnessDoor(add))


def make_witness(config: Config) -> Witness:
    """The witness of a configuration that has a key for it.

    Raises:
        KeyUnusableError: a key cannot be used.
        WitnessError: another process has its memory.
        OSError: the memory cannot be made.
    """
    section = config.witness
    keys = (section.key,) if section.key else ()
    signer = NoteSigner("witness.key", keys)
    logs = [tuple(map(read_note_key, files)) for files in section.keys_of_logs]
    return Witness(config.state_folder / "witness", section.name, signer, logs)
