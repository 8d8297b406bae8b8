"""`atlas serve`, `check` and `config show`: what is served, and what would be."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
from typing import TYPE_CHECKING

from config.problems import ConfigError
from gateway import __version__
from gateway.commands.parts import command, file_flags, group
from gateway.commands.terminal import DONE, FAILED
from gateway.telemetry.audit import record

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from socket import socket

    from config.settings import Settings
    from gateway.api.serving import Server
    from gateway.api.signals import Signals
    from gateway.commands.parts import Commands
    from gateway.commands.terminal import Terminal
    from gateway.reload import Reload

log = logging.getLogger("atlas.server")

_SERVE = """Start the gateway. Without a configuration file it serves this machine, with the mock and the vendors
whose usual variables are set.

SIGTERM and Ctrl-C let running streams end first, a second one does not. SIGHUP reads the file again:
endpoints, routes, keys, budgets and agents are taken over at once; what is wrong is logged and changes
nothing."""


def add(commands: Commands) -> None:
    """The commands."""
    file = [file_flags()]
    serve = command(commands, "serve", "start the gateway", _serve, parents=file, description=_SERVE)
    serve.add_argument("--host", help="the address to bind to")
    serve.add_argument("--port", type=int, help="the port to bind to; 0 takes any free one")
    serve.add_argument("--insecure", action="store_true", help="serve other machines although there are no keys")
    command(commands, "check", "validate the configuration", _check, parents=file)
    shown = group(command(commands, "config", "look at the configuration"), "config_command")
    command(shown, "show", "print the effective settings, without secrets", _show, parents=file)


def _check(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from config.load import load  # noqa: PLC0415  commands that ask a gateway start in half the time without it
    from gateway.commands.announcement import summary_text  # noqa: PLC0415
    from gateway.commands.binding import exposure  # noqa: PLC0415
    from gateway.commands.building import build  # noqa: PLC0415

    settings = load(arguments.config, terminal.environ)
    build(settings)
    terminal.say(summary_text(settings, exposure(settings)))
    return DONE


def _show(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from config.load import load  # noqa: PLC0415
    from config.show import redacted_yaml  # noqa: PLC0415

    terminal.show(redacted_yaml(load(arguments.config, terminal.environ)))
    return DONE


def _serve(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from gateway.api.signals import Signals  # noqa: PLC0415  it and the next belong to the server

    with Signals() as signals:
        from config.load import load  # noqa: PLC0415
        from gateway.commands.binding import base_url, listen, refuse_exposure  # noqa: PLC0415

        def read() -> Settings:
            insecure, host, port = arguments.insecure or None, arguments.host, arguments.port
            found = load(arguments.config, terminal.environ, host=host, port=port, insecure=insecure)
            refuse_exposure(found)
            return found

        settings = read()
        with listen(settings.server.host, settings.server.port) as listener:
            _open_more_files()
            host, port = listener.getsockname()[:2]
            server = _server(settings, read, signals, base_url(host, port), terminal)
            _tune_process(settings)
            return _run(server, listener)


def _run(server: Server, listener: socket) -> int:
    """Serve to the end. That it refused to start is 1: uvicorn's 3 would say that no gateway was reached."""
    try:
        return server.run([listener])
    except SystemExit as left:
        return FAILED if left.code else DONE


def _open_more_files() -> None:
    """As many as the system allows without asking: the usual soft limit is for programs that use `select`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems call the hard limit endless and mean less
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _tune_process(settings: Settings) -> None:
    """What belongs to the process, not to the app: where logs go, and a garbage collector that looks less often.

    Streams are freed by reference counts; the default thresholds would walk every open stream many times a second.
    """
    from gateway.telemetry.logs import configure  # noqa: PLC0415 - after uvicorn, whose logs go the same way

    configure(settings.server.log_level)
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def _server(settings: Settings, read: Callable[[], Settings], signals: Signals, url: str, terminal: Terminal) -> Server:
    """A server of these settings, which says so once it answers; `read` gives those of a reload."""
    # `config show` starts in half the time without the web framework
    from gateway.api.serving import Server, server_config  # noqa: PLC0415
    from gateway.commands.announcement import startup_text  # noqa: PLC0415
    from gateway.commands.building import build  # noqa: PLC0415

    app = build(settings)
    text = startup_text(settings, url)

    def announce() -> None:
        terminal.announce(text + "\n")
        _log_in_force(f"Atlas {__version__} serves {url}", settings)

    return Server(server_config(app), app.drain, signals, announce, Reloader(lambda: app.reload, read))


def _log_in_force(what: str, settings: Settings) -> None:
    """For whoever has the log alone: what began, what it serves, and what the operator should know of it."""
    counts = (len(settings.endpoints), len(settings.routes), len(settings.keys), len(settings.effective_agents))
    log.info("%s: %d endpoints, %d routes, %d keys, %d agents", what, *counts)
    for note in settings.notes:
        log.warning("configuration: %s", note)


class Reloader:
    """What SIGHUP does. `read` gives the settings that the file, the environment and the flags say now."""

    def __init__(self, found: Callable[[], Reload], read: Callable[[], Settings]) -> None:
        self._found, self._read = found, read

    async def __call__(self) -> None:
        """Take over what is written now, or say why not; the log tells."""
        from gateway.reload import key_changes  # noqa: PLC0415  the gateway has loaded it

        reload = self._found()
        before = reload.settings
        try:
            settings = await asyncio.to_thread(self._read)
            waiting = reload.apply(settings)
        except (ConfigError, ValueError, OSError, TypeError, ImportError) as error:  # a file, or a class of agents, too
            said = "; ".join(str(error).splitlines())
            log.error("the configuration was not reloaded, the one before stays in force: %s", said)  # noqa: TRY400
            record("configuration.reload", "refused")
            return
        logging.getLogger("atlas").setLevel(settings.server.log_level.upper())
        record("configuration.reload", "done")
        for change, key_id in key_changes(before, settings):
            record(change, "done", subject=key_id)
        _log_in_force("configuration reloaded", settings)
        if waiting:
            log.warning("these take effect at the next start: %s", ", ".join(waiting))
