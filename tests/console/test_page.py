"""The page in a real browser, over a real fleet: live, recovering by itself, plain on a phone and in the dark."""

import csv
import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

MARKUP = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
VIEWS = {"#/": ".chip", "#/assets/cycle-00002": ".fan-chart", "#/rejected": "td a", "#/tuner": ".facts dd"}
expect.set_options(timeout=20_000)  # on a machine that has other things to do
WIDER = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


def write_ticks(file: Path) -> None:
    """An asset may be called anything; and its last three ticks are none that a worker can take."""
    rows = [(MARKUP, 1_700_000_000_000_000_000 + number, 100 + number % 7) for number in range(60)]
    rows += [(MARKUP, 1_600_000_000_000_000_000, 1.0)] * 3
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([("asset", "timestamp_ns", "value"), *rows])


@pytest.fixture(scope="module")
def fleet(browser, commands, program):
    """Two workers, sixty assets at 250 ticks a second, an operator's console; gives the page's address."""
    for name in ("worker-1", "worker-2"):
        commands.start(name, "worker", "--name", name, "--partitions", "16")
    for name in ("worker-1", "worker-2"):
        commands.heard(name, r'"phase": "ready"')
    write_ticks(commands.home / "ticks.csv")
    commands.run("feed", "--csv", "ticks.csv")
    commands.start("feed", "feed", "--assets", "60", "--rate", "250", "--seconds", "600")
    return commands.console("console", "--operator")


@pytest.fixture
def address(fleet):
    return fleet.split("#")[0]


def shots() -> Path | None:
    """Where the pictures of these pages go, if anybody wants to look at them."""
    folder = os.environ.get("CONSOLE_PICTURES")
    return Path(folder) if folder else None


def test_totals_and_leases_are_live(address, open_page):
    page = open_page(address)
    expect(page.locator(".worker")).to_have_count(2)
    expect(page.locator(".chip")).to_have_count(16)
    expect(page.locator("#tile-assets")).to_have_text("61")
    expect(page.locator("#tile-rate")).to_have_text(re.compile(r"^[1-9]\d\d$"))
    expect(page.locator("#tile-p99")).to_have_text(re.compile(r"\d m?s$"))
    expect(page.locator("#tile-batch")).not_to_have_text("–")
    applied = page.locator("#tile-applied").text_content()
    expect(page.locator("#tile-applied")).not_to_have_text(applied)
    assert "version" in page.locator(".server").text_content()


def test_an_asset_shows_its_fan_and_new_ticks_as_they_come(address, open_page):
    page = open_page(f"{address}#/assets/cycle-00002")
    expect(page.locator(".fan-chart path.fan.next")).to_have_count(3)
    band = page.locator(".fan-chart path.fan-0").first
    expect(band).to_have_attribute("d", re.compile(r"^M[-\d. L]+Z"))
    expect(page.locator(".facts")).to_contain_text(re.compile(r"in its band\d+\.\d % of \d+"))
    expect(page.locator("svg .kernel-2")).to_have_count(1)
    told = page.locator(".readout").text_content()
    expect(page.locator(".readout")).not_to_have_text(told)
    page.locator(".drawing").first.press("ArrowLeft")
    expect(page.locator(".readout")).to_contain_text("value")


def test_search_finds_a_part_of_a_name_in_either_case(address, open_page):
    page = open_page(f"{address}#/assets")
    page.get_by_label("Asset").first.fill("CYCLE-0001")
    expect(page.locator("#found a")).to_have_text(["cycle-00012", "cycle-00017"])
    page.keyboard.press("Enter")
    expect(page.locator("#asset-name")).to_have_text("cycle-00012")
    expect(page.locator(".fan-chart")).to_be_visible()


def test_a_name_with_markup_stays_text(address, open_page):
    page = open_page(f"{address}#/assets")
    page.get_by_label("Asset").first.fill("<script>")
    expect(page.locator("#found a")).to_have_text([MARKUP])
    page.locator("#found a").click()
    expect(page.locator("#asset-name")).to_have_text(MARKUP)
    expect(page.locator(".fan-chart")).to_be_visible()
    page.goto(f"{address}#/rejected")
    expect(page.locator("td a").first).to_have_text(MARKUP)
    assert page.title() == "predictor console"
    assert page.locator("main img, main script").count() == 0


@pytest.mark.parametrize(("view", "whole"), VIEWS.items())
def test_no_view_is_wider_than_the_screen(address, open_page, view, whole):
    page = open_page(address + view)
    expect(page.locator(whole).first).to_be_visible()
    for width, scheme in ((1200, "dark"), (1200, "light"), (360, "dark"), (360, "light")):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("innerWidth") == width
        assert not page.evaluate(WIDER), (width, scheme)
        ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (ground == "rgb(18, 22, 28)") == (scheme == "dark")
        if (folder := shots()) is not None:
            page.wait_for_timeout(1200)
            page.screenshot(path=folder / f"{width}-{scheme}-{view.split('/')[1] or 'fleet'}.png", full_page=True)


def loads_jax(process) -> bool:
    return "jaxlib" in Path(f"/proc/{process.pid}/maps").read_text()


def test_a_reader_is_offered_no_orders_and_an_operator_is_obeyed(fleet, address, open_page, commands):
    reader = open_page(f"{address}#/rejected")
    expect(reader.locator("td code")).to_have_count(3)
    assert reader.locator("main button").count() == 0

    page = open_page(fleet)
    assert page.evaluate("location.hash") == "#/"  # the token does not stay in the address
    page.goto(f"{address}#/rejected")
    page.locator("input[type=checkbox]").first.check()
    order(page, "Purge the chosen", "purged 1")
    expect(page.locator("td code")).to_have_count(2)
    page.goto(f"{address}#/tuner")
    page.locator(".facts dd").first.wait_for()
    order(page, "Pause", "paused")
    expect(page.locator("table").last).to_contain_text("an operator's test")
    # It takes seconds, in which the page would not answer.
    assert loads_jax(commands.running["worker-2"]) and not loads_jax(commands.running["console"])


def order(page, label: str, told: str) -> None:
    page.get_by_role("button", name=label).click()
    page.get_by_label("Who").fill("ana")
    page.get_by_label("Why").fill("an operator's test")
    page.locator("dialog button.strong").click()
    expect(page.locator("dialog .answer")).to_contain_text(told)
    page.get_by_role("button", name="Close").click()


def test_a_dead_worker_s_leases_move_to_the_other_one_without_a_reload(address, open_page, commands):
    page = open_page(address)
    one, two = (page.locator(f"[data-worker=worker-{n}] .chip") for n in (1, 2))
    expect(one).to_have_count(8)
    expect(two).to_have_count(8)
    page.evaluate("window.same = true")
    moved = page.locator(".moves li").first.text_content()
    commands.kill("worker-1")
    expect(two).to_have_count(16, timeout=10_000)  # a lease of 1.5 s, and a look every second
    assert page.evaluate("window.same")
    expect(page.locator("[data-worker=worker-1]")).to_have_class(re.compile("gone"))
    expect(page.locator(".moves li").first).not_to_have_text(moved)
    expect(page.locator(".moves li").first).to_contain_text("worker-1 → worker-2")


def test_a_server_that_restarts_is_waited_for_and_the_page_recovers(address, open_page, server):
    page = open_page(address)
    expect(page.locator("#state")).to_have_text("live")
    server.stop()
    expect(page.locator("#waiting")).to_contain_text("Waiting for a fleet at redis://127.0.0.1")
    expect(page.locator("#waiting")).to_contain_text("refuses connections")
    server.start()
    expect(page.locator("#waiting")).to_be_hidden(timeout=15_000)
    expect(page.locator("#state")).to_have_text("live")
    applied = page.locator("#tile-applied").text_content()
    expect(page.locator("#tile-applied")).not_to_have_text(applied)


def test_a_console_that_is_gone_is_said_to_be(address, open_page, commands):
    page = open_page(address)
    expect(page.locator("#state")).to_have_text("live")
    commands.kill("console")
    expect(page.locator("#state")).to_have_text("the console does not answer")
    open_page.troubles.clear()  # the browser tells of the lost connection
