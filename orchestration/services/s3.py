"""S3: versitygw, which keeps objects as files. A bucket is a folder: https://github.com/versity/versitygw/wiki/POSIX-Backend"""

import os
import shutil
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestration.progress import progress_bar
from orchestration.services.jars import cache_folder
from orchestration.services.service import USER, ProgramMissing, Service

VERSION = "v1.8.0"
MODULE = f"github.com/versity/versitygw/cmd/versitygw@{VERSION}"
BUCKET, PREFIX, REGION = "footfall", "lake", "us-east-1"


class S3(Service):
    """An S3 for the lake."""

    name = "s3"
    usual_port = 7070

    @property
    def url(self) -> str:
        """What FOOTFALL_LAKE takes."""
        return f"s3://{BUCKET}/{PREFIX}"

    @property
    def endpoint(self) -> str:
        """Where it answers."""
        return f"{'https' if self.secure else 'http'}://{self.address}"

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables with which Footfall, and other programs, use it."""
        return {
            "FOOTFALL_LAKE": self.url,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": USER,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": REGION,
            "AWS_ALLOW_HTTP": "false" if self.secure else "true",
        }

    @property
    def mark(self) -> str:
        """An argument that only its processes have."""
        return str(self.data)

    def fetch(self) -> None:
        """Looks for versitygw, and builds it where it is not there. Raises ProgramMissing."""
        self.program = _find_versitygw()

    def prepare(self) -> None:
        """Makes the bucket."""
        (self.data / BUCKET).mkdir(parents=True, exist_ok=True)

    def command(self) -> Sequence[str]:
        """How it is started. Metadata is in extended attributes, and beside the data where the file system has none."""
        tls = ["--cert", str(self.secure.certificate), "--key", str(self.secure.key)] if self.secure else []
        beside = [] if _has_attributes(self.data) else ["--sidecar", str(self.folder / "metadata")]
        if beside:
            (self.folder / "metadata").mkdir(exist_ok=True)
        gateway = [str(self.program), "--quiet", "--port", f"{self.address}", "--region", REGION, *tls]
        return [*gateway, "posix", *beside, str(self.data)]

    def variables(self) -> Mapping[str, str]:
        """The keys, which are not for the command line: everybody could read them there."""
        return {**os.environ, "ROOT_ACCESS_KEY": USER, "ROOT_SECRET_KEY": self.secret}

    def answers(self) -> bool:
        """Whether it refuses who comes without keys."""
        try:
            _direct(self.trusted()).open(f"{self.endpoint}/{BUCKET}", timeout=5).close()
        except urllib.error.HTTPError as refusal:
            refusal.close()
            return refusal.code == 403
        except OSError:
            return False
        return True


def _direct(trusted: ssl.SSLContext | None) -> urllib.request.OpenerDirector:
    """Without the proxies of the environment: it is on this machine."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted))


def _has_attributes(folder: Path) -> bool:
    try:
        os.setxattr(folder, "user.footfall", b"1")
    except (OSError, AttributeError):  # macOS has them, and Python there has no such function
        return False
    return True


def _find_versitygw() -> Path:
    """The program: one that was built before, built now where Go is there, or one on the path. Raises ProgramMissing."""
    built = cache_folder() / "bin" / f"versitygw-{VERSION}"
    if built.exists():
        return built
    if go := shutil.which("go"):
        _build(go, built)
        return built
    if found := shutil.which("versitygw"):
        return Path(found)
    raise ProgramMissing(
        "S3 is versitygw here, which is built with Go, and there is no Go. Install it (https://go.dev/dl, or your system's "
        "package of Go), or put the program versitygw on the path (https://github.com/versity/versitygw)."
    )


def _build(go: str, program: Path) -> None:
    """Go verifies what it downloads by its checksum database. A minute, once."""
    program.parent.mkdir(parents=True, exist_ok=True)
    with (
        progress_bar("Building versitygw", "programs") as progress,
        tempfile.TemporaryDirectory(dir=program.parent) as new,
    ):
        progress(0, 1)
        done = subprocess.run([go, "install", MODULE], env={**os.environ, "GOBIN": new}, capture_output=True, text=True, cwd=new)  # fmt: skip
        if done.returncode:
            raise ProgramMissing(f"versitygw could not be built with {go}:\n{done.stderr[-2000:]}")
        Path(new, "versitygw").rename(program)
        progress(1, 1)
