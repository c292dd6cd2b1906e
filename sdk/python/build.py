#!/usr/bin/env python3
"""Makes a plugin of a module in which a class is derived from `walmill.Plugin`:

    venv/bin/python walmill/build.py src/plugin.py build/plugin.wasm

componentize-py, which is taken from the same environment, puts it into an interpreter.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

SDK = Path(__file__).resolve().parent


def interfaces() -> str:
    """The interface's file: the project's own, or the one in walmill's repository."""
    for folder in (Path("wit"), SDK.parent.parent / "wit"):
        if (folder / "walmill.wit").is_file():
            return (folder / "walmill.wit").read_text()
    sys.exit("wit/walmill.wit is missing: `walmill plugin new` writes it")


def world(sources: Path) -> str:
    """A world with no more in it than the plugin may use: an operator has to grant keyed state,
    and shouldn't be asked for what is not used."""
    texts = (path.read_text() for path in sources.rglob("*.py"))
    kv = "import kv;" if any(re.search(r"\bkv\b", text) for text in texts) else ""
    imports = f"import log; import clock; import metrics; {kv}"
    return f"world python {{ {imports} export lifecycle; export transform; }}\n"


def name() -> str:
    """What the plugin is called in plugin.toml."""
    found = re.search(r'^name\s*=\s*"([^"]*)"', Path("plugin.toml").read_text(), re.MULTILINE)
    return found[1] if found else Path.cwd().name


def app(module: str) -> str:
    """The module that componentize-py looks at."""
    return f"""import {module}
from walmill import world
from walmill.world import Lifecycle, Transform

world.NAME = {name()!r}
"""


def main() -> None:
    source, output = (Path(path) for path in (sys.argv[1:] or ["src/plugin.py", "build/plugin.wasm"]))
    build = output.parent
    (build / "wit").mkdir(parents=True, exist_ok=True)
    (build / "wit/walmill.wit").write_text(interfaces() + world(source.parent))
    (build / "walmill_app.py").write_text(app(source.stem))
    # Under its name, wherever the SDK's folder is; what the interpreter reads must be no link.
    shutil.rmtree(build / "walmill", ignore_errors=True)
    shutil.copytree(SDK, build / "walmill", ignore=shutil.ignore_patterns("__pycache__", "build.py"))
    # No clock, no chance, no files but walmill's: the same changes give the same answers.
    command = [Path(sys.executable).parent / "componentize-py", "--quiet"]
    command += ["--wit-path", build / "wit", "--world", "python", "componentize", "--stub-wasi"]
    command += ["--python-path", source.parent, "--python-path", build]
    command += ["walmill_app", "--output", f"{output}.new"]
    if subprocess.run(command).returncode != 0:
        sys.exit(1)
    # walmill watches the file, so it appears whole.
    Path(f"{output}.new").rename(output)


main()
