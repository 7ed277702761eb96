"""The environment of each peer: the same Python, pydantic and OpenTelemetry, and what the peer itself needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = ["pydantic==2.14.3", "opentelemetry-sdk==1.45.2"]
PEERS = {
    "agentflow": ["--editable", str(ROOT), "numpy==2.4.6", "openai==3.54.0"],
    "langchain": [
        "langchain==1.4.7",
        "langchain-openai==1.7.3",
        "openai==3.52.0",
        "openinference-instrumentation-langchain==0.1.80",
    ],
    "llamaindex": [
        "llama-index-core==0.14.25",
        "llama-index-llms-openai==0.8.3",
        "llama-index-observability-otel==0.7.0",
        "llama-index-workflows==2.26.1",
        "openai==2.54.0",
    ],
    "openai_agents": [
        "openai-agents==0.24.0",
        "openai==3.52.0",
        "openinference-instrumentation-openai-agents==2.6.0",
    ],
    "pydantic_ai": ["pydantic-ai-slim[openai]==2.68.0", "openai==3.52.0"],
}


def python_of(peer: str, folder: Path) -> str:
    """The interpreter of the peer's environment, which is made first where it is missing or outdated."""
    environment = folder / peer
    python = environment / "bin" / "python"
    needs = [*SHARED, *PEERS[peer]]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8") if "--editable" in needs else ""
    stamp, content = environment / "installed", "\n".join([sys.version, *needs, project])
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != content:
        print(f"Setting up {environment} ...", flush=True)
        if uv := shutil.which("uv"):
            make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(environment)]
            install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python)]
        else:
            make = [sys.executable, "-m", "venv", "--clear", str(environment)]
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run(make, check=True)
        subprocess.run([*install, *needs], check=True)
        stamp.write_text(content, encoding="utf-8")
    return str(python)
