"""``gpudiag-agent``: the command. Only the flags are read before anything heavy is imported."""

import sys
from collections.abc import Sequence

from gpudiag_agent import options as command_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit status: 0 stopped by a signal, 1 failed, 2 wrong usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["xid"]:
        from gpudiag_agent.commands import xid  # noqa: PLC0415 - each command loads only what it needs

        return xid.main(given[1:])
    if given[:1] == ["check"]:
        from gpudiag_agent.commands import check  # noqa: PLC0415

        return check.main(given[1:])
    options = command_line.parse(given)

    # From here on the agent really runs: asyncio and aiohttp cost 0.3 s that --help should not.
    import asyncio  # noqa: PLC0415
    import logging  # noqa: PLC0415

    from gpudiag_agent import listening, logs, run  # noqa: PLC0415
    from gpudiag_agent.configuration import ConfigurationError  # noqa: PLC0415
    from gpudiag_agent.simulated.scenario import ScenarioError  # noqa: PLC0415

    logs.configure(options.log_level)
    try:
        sock = listening.listen(options.host, options.port)
    except OSError as error:
        where = f"--host {options.host or '(all)'} --port {options.port}"
        return _refuse(f"cannot listen on {where}: {error.strerror or error}", 1)
    try:
        asyncio.run(run.serve(options, sock))
    except ScenarioError as error:
        return _refuse(f"--scenario: {error}", command_line.EXIT_USAGE)
    except ConfigurationError as error:
        return _refuse(f"--config: {error}", command_line.EXIT_USAGE)
    except listening.ListenError as error:
        return _refuse(str(error), 1)
    except Exception:
        logging.getLogger(__name__).exception("the agent failed")
        return 1
    finally:
        sock.close()
    return 0


def _refuse(sentence: str, status: int) -> int:
    sys.stderr.write(f"{command_line.PROGRAM}: {sentence}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
