"""`loragate-server signing`: the keys that verdicts are signed with."""

from __future__ import annotations

import json

import typer

from loragate_server.cli.group import Group
from loragate_server.cli.options import EXIT_FAILED, ConfigOption, StateOption, fail, load

signing = Group(no_args_is_help=True, help="The keys that verdicts are signed with.")


@signing.callback()
def _group() -> None:
    """A group even with one command."""


@signing.command()
def jwks(config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Prints the public keys as a JSON Web Key Set, for those who check verdicts.

    Holds every key of the configuration, also one that is still to come or signs no more. Leave out
    of the set what was revoked: what that key has signed is refused from then on.

    [bold]Example[/bold]

      loragate-server signing jwks --config /etc/loragate.yaml > loragate.jwks
    """
    from loragate_server.record.signing.key_set import key_set
    from loragate_server.record.signing.keys import KeyUnusableError, public_keys

    section = load(config, {"state_dir": state_dir}).signing
    if not section.keys:
        fail("signing.keys is empty, so nothing is signed; add a key.", EXIT_FAILED)
    try:
        made = key_set(public_keys(section))
    except KeyUnusableError as error:
        fail(str(error), EXIT_FAILED)
    except ImportError:
        fail("this needs the extra `signing`: pip install 'loragate-server[signing]'", EXIT_FAILED)
    typer.echo(json.dumps(made, indent=2))
