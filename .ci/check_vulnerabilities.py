"""Ask the vulnerability service about every locked version; say loudly if it cannot be reached.

Usage: ``python .ci/check_vulnerabilities.py requirements/run.txt``. Exits 1 on a known
vulnerability, 0 when there is none, and 0 with a banner when the service did not answer: having
no network is no reason to fail, but must be seen.
"""

from __future__ import annotations

import json
import subprocess
import sys

TIMEOUT_S = 120
# What pip-audit says when it could not ask, as against what it was told.
UNREACHABLE = (
    "ConnectionError",
    "ServiceError",
    "Could not connect",
    "Connection refused",
    "Connection reset",
    "HTTP error",
    "HTTPError",
    "Max retries exceeded",
    "Name or service not known",
    "Read timed out",
    "SSLError",
    "Temporary failure in name resolution",
    "Unauthorized",
)


def audit(locks: list[str]) -> tuple[str, str]:
    """Run pip-audit over the locks; return its two outputs."""
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner=off", "--format=json"]
    command += ["--disable-pip", "--require-hashes", *(f"--requirement={lock}" for lock in locks)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "", f"Read timed out: no answer in {TIMEOUT_S} s"
    return done.stdout, done.stderr


def left_out(why: str) -> None:
    """Say so that nobody scrolls past it."""
    print("!" * 100)
    print("!!! CHECK LEFT OUT: known vulnerabilities. The service that lists them did not answer:")
    print(f"!!! {why[:400]}")
    print("!" * 100)


def main() -> int:
    """Print a verdict; return the exit code."""
    answer, said = audit(sys.argv[1:])
    try:
        packages = json.loads(answer)["dependencies"]
    except (ValueError, KeyError):
        if not any(mark in said for mark in UNREACHABLE):
            print(f"FAILED: pip-audit gave no verdict\n{said}")
            return 1
        left_out(said.strip().splitlines()[-1])
        return 0
    found = [
        f"{package['name']} {package['version']}: {hole['id']}, fixed in {hole['fix_versions']}"
        for package in packages
        for hole in package.get("vulns", [])
    ]
    if found:
        print("FAILED: known vulnerabilities\n  " + "\n  ".join(found))
        return 1
    # A mirror that serves files without their descriptions makes pip-audit skip packages.
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if skipped:
        left_out(f"{len(skipped)} of {len(packages)} not audited: {', '.join(skipped)}")
    if len(skipped) < len(packages):
        print(f"vulnerabilities: none known in {len(packages) - len(skipped)} audited packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
