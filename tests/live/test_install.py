"""Install from URL, "Apply and restart UI" and disabling, in the browser of a WebUI that does not have the extension.

The address of a git repository stands in LATENT_UPSCALE_REPOSITORY, e.g. file:///home/me/latent-upscale. The WebUI must
have been started by a script that starts it again (webui.sh, webui.bat); no other live test can run beside this one.
"""

import os
import re
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlparse

import pytest

REPOSITORY = "LATENT_UPSCALE_REPOSITORY"
PATIENCE = 300
"""Seconds in which the WebUI has to be back."""
SETTLING = 20
"""Seconds after it listens: a request before it is ready ends its start ("Cannot add middleware")."""


def state_of(webui: Any) -> dict[str, Any]:
    """What of the WebUI can be seen from outside and an extension could leave something in."""
    chosen = webui.call("/sdapi/v1/options")
    return {
        "scripts": webui.call("/sdapi/v1/scripts"),
        "controls and axes": webui.call("/sdapi/v1/script-info"),
        # What the host saves of an extension's settings stays in config.json, as of any extension.
        "options": {
            k: v for k, v in chosen.items() if not k.startswith(("latent_upscale", "disabled_ext", "sd_check"))
        },
        "samplers": webui.call("/sdapi/v1/samplers"),
        "schedulers": webui.call("/sdapi/v1/schedulers"),
    }


def scripts(webui: Any) -> list[str]:
    found: list[str] = webui.call("/sdapi/v1/scripts")["img2img"]
    return found


class Extensions:
    """The tab "Extensions"."""

    def __init__(self, browser: Any, webui: Any, folder: str = "") -> None:
        self.webui = webui
        self.folder = folder
        self.page = browser.new_page(viewport={"width": 1400, "height": 1000})
        self.page.goto(webui.url)
        self.page.wait_for_selector("#tabs > .tab-nav button", timeout=60_000)
        self.page.locator("#tabs > .tab-nav button").filter(has_text="Extensions").first.click()

    def install(self, url: str) -> None:
        self.page.locator("#tabs_extensions .tab-nav button").filter(has_text="Install from URL").click()
        self.page.get_by_label("URL for extension's git repository").locator("visible=true").first.fill(url)
        self.page.get_by_role("button", name="Install", exact=True).locator("visible=true").click()
        said = re.compile("Installed into|Error|already installed")
        result = self.page.locator("#extension_install_result").filter(has_text=said).last
        result.wait_for(timeout=180_000)
        self.folder = re.search(r"Installed into (.+?)\. Use", result.inner_text()).group(1)
        self.page.locator("#tabs_extensions .tab-nav button").filter(has_text="Installed").click()

    @property
    def switch(self) -> Any:
        """The extension's, under whatever name the repository's folder has."""
        name = re.split(r"[/\\]", self.folder)[-1]
        return self.page.locator(f'#extensions_installed_html input[name="enable_{name}"]')

    def apply(self) -> None:
        """Apply, and wait for the WebUI that has started again."""
        self.page.get_by_role("button", name=re.compile("^Apply and")).click()
        address = urlparse(self.webui.url)
        for expected in (False, True):
            wait_until(lambda expected=expected: answers(address.hostname, address.port or 80) == expected)
        time.sleep(SETTLING)
        self.page.close()


def wait_until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, f"the WebUI did not come back within {PATIENCE} s"
        time.sleep(0.1)


def answers(host: str, port: int) -> bool:
    """Whether something listens; nothing is sent."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(REPOSITORY not in os.environ, reason=f"put the address of a git repository into {REPOSITORY}")
def test_it_is_installed_used_and_disabled_without_a_trace(webui, browser, picture):
    if "latent upscale" in scripts(webui):
        pytest.skip("the WebUI has the extension already")
    host, before = webui.warm(picture).pixels, state_of(webui)
    tab = Extensions(browser, webui)
    if "quit" in tab.page.get_by_role("button", name=re.compile("^Apply and")).inner_text():
        pytest.skip("nothing would start the WebUI again: start it with webui.sh or webui.bat")
    tab.install(os.environ[REPOSITORY])
    assert tab.switch.is_checked()
    tab.apply()
    assert "latent upscale" in scripts(webui)
    webui.same(webui.warm(picture).pixels, host)
    assert "Latent upscale method: " in webui.ours(picture, {}).infotext
    webui.same(webui.host(picture).pixels, host)
    controls = [control for script in webui.call("/sdapi/v1/script-info") for control in script["args"]]
    assert any("[Latent Upscale] Method" in (control["choices"] or []) for control in controls)

    folder = tab.folder
    tab = Extensions(browser, webui, folder)
    tab.switch.uncheck()
    tab.apply()
    assert "latent upscale" not in scripts(webui)
    assert state_of(webui) == before
    webui.same(webui.warm(picture).pixels, host)
