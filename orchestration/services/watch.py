"""Kills the services of a folder when its standard input ends: when who started it ends, however that ends."""

import signal
import sys
from pathlib import Path

from orchestration.services import find_services


def main() -> None:
    """For `python -m orchestration.services.watch FOLDER`."""
    sys.stdin.read()
    for service in find_services(Path(sys.argv[1])).values():
        service.kill()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
