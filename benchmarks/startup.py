"""How much of a WebUI's start the extension's script takes, by the host's own clock.

    LATENT_UPSCALE_WEBUI_URL=http://127.0.0.1:7860 python benchmarks/startup.py

The host times every script that it loads; what the panel adds to "create ui" is not in it. For that, compare the totals
of several starts with and without the extension, in turns: on a busy machine they differ by more than the extension
takes.
"""

import json
import os
import sys
import urllib.request

SCRIPT = "/latent_upscale.py"


def main() -> None:
    url = os.environ.get("LATENT_UPSCALE_WEBUI_URL", "").rstrip("/")
    if not url:
        sys.exit("put the address of a running WebUI into LATENT_UPSCALE_WEBUI_URL")
    with urllib.request.urlopen(url + "/internal/profile-startup", timeout=60) as answer:
        profile = json.load(answer)
    records: dict[str, float] = profile["records"]
    own = sum(seconds for name, seconds in records.items() if name.endswith(SCRIPT))
    print(f"start {profile['total']:.3f} s, this extension's script {own:.3f} s ({own / profile['total']:.1%})")
    for name in ("load scripts", "create ui", "gradio launch"):
        print(f"{name:14} {records.get(name, 0):.3f} s")


if __name__ == "__main__":
    main()
