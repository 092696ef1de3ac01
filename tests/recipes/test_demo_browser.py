"""The demo as a visitor sees it: a real browser, without a screen, on the page that demo.py serves."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from hf_latentrec import ItemCatalog, LatentRecProcessor, Qwen3ForLatentReasoningRec, Qwen3LatentRecConfig
from hf_latentrec.models.latent_reasoning.tokenization import build_byte_tokenizer


ROOT = Path(__file__).parents[2]
TITLES = [
    "Lavender soap", "Cotton towel", "<script>document.title = 'stolen'</script>", "Soap for $5, not $x^2$",
    "${1 + 1} {{value}}", "Shampoo",
]  # fmt: skip
FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1200,1000""".split()
PATIENCE = 60  # seconds that a busy machine may need


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """A model that thinks with three factors about items whose titles mean harm."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = build_byte_tokenizer()
    items = [{"item_id": f"B{row}", "title": title} for row, title in enumerate(TITLES)]
    catalog = ItemCatalog.from_items(items, tokenizer, item_tokenization="title")
    config = Qwen3LatentRecConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, pad_token_id=tokenizer.pad_token_id, initializer_range=0.5,
        reasoner_config={"reasoner": "factorized_attention", "num_thoughts": 1, "num_factors": 3},
    )  # fmt: skip
    Qwen3ForLatentReasoningRec(config).save_pretrained(folder)
    LatentRecProcessor(tokenizer, catalog).save_pretrained(folder)
    return folder


@contextmanager
def served(model_dir, log):
    """demo.py on a free port, for a while; its address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "recipes/demo.py", "--model", str(model_dir), "--port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=output, stderr=output
        )
        try:
            url, end = f"http://127.0.0.1:{port}/", time.monotonic() + 2 * PATIENCE
            while True:
                try:
                    urllib.request.urlopen(url, timeout=5).close()
                    break
                except OSError:
                    assert process.poll() is None and time.monotonic() < end, log.read_text()
                    time.sleep(0.1)
            yield url
        finally:
            process.kill()
            process.wait()


@contextmanager
def chromium(profile):
    """A browser without a screen that notes what it loads."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def until(condition, what):
    """What a condition gives as soon as it gives something."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, f"{what}: not within {PATIENCE} s"
        time.sleep(0.05)
    return found


def texts(driver, selector):
    """Texts of all elements; read in one go, because the page may be drawing."""
    script = "return [...document.querySelectorAll(arguments[0])].map(element => element.textContent.trim())"
    return driver.execute_script(script, selector)


def loaded(driver, selector):
    """Whether a picture is there, with something in it."""
    script = "const image = document.querySelector(arguments[0]); return Boolean(image && image.naturalWidth > 100)"
    return driver.execute_script(script, selector)


def click(driver, selector):
    driver.execute_script("document.querySelector(arguments[0]).click()", selector)


@pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="chromium or chromedriver is missing"
)
def test_a_visitor_gets_recommendations_and_sees_what_the_model_thought(model_dir, tmp_path):
    pytest.importorskip("gradio")
    pytest.importorskip("selenium")
    with served(model_dir, tmp_path / "demo.log") as url, chromium(tmp_path / "profile") as driver:
        driver.get(url)
        until(lambda: len(texts(driver, "#matches label")) == len(TITLES), "all items are listed")
        assert texts(driver, "#matches label") == [f"{title}  ·  B{row}" for row, title in enumerate(TITLES)]

        driver.find_element("css selector", "#query textarea, #query input").send_keys("soap")
        until(lambda: texts(driver, "#matches label") == ["Lavender soap  ·  B0", f"{TITLES[3]}  ·  B3"], "a search")
        for number, place in enumerate((1, 2), start=1):
            click(driver, f"#matches label:nth-of-type({place}) input")
            until(lambda number=number: len(texts(driver, "#history label")) == number, "an item is added")
        assert texts(driver, "#history label") == ["1. Lavender soap  ·  B0", f"2. {TITLES[3]}  ·  B3"]

        click(driver, "button#recommend, #recommend button")
        until(lambda: texts(driver, "#table td"), "recommendations")
        assert sorted(texts(driver, "#table td:nth-child(2)")) == sorted(f"{t}B{row}" for row, t in enumerate(TITLES))
        thoughts = "#thoughts textarea, #thoughts input"
        assert driver.find_element("css selector", thoughts).get_property("value") == (
            "The model thinks once, with 3 factors and 2 passes."
        )
        for picture in ("attention", "correlation", "gates"):
            until(lambda picture=picture: loaded(driver, f"#{picture} img"), picture)
        assert driver.title == "Next items"  # and no title ran as a script

        driver.save_screenshot(str(tmp_path / "desktop.png"))
        phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        width = "return document.documentElement.scrollWidth"
        until(lambda: driver.execute_script(width) <= 390, "the page fits on a phone")
        driver.save_screenshot(str(tmp_path / "phone.png"))

        messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
        requests = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        own = (url, "data:", "blob:", "chrome")  # the last: the browser's own first page
        assert any(request.startswith(url) for request in requests)
        assert [request for request in requests if not request.startswith(own)] == []
        assert [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
