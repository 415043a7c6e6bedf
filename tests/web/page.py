"""The page at / in a headless Chromium. With a directory as the second argument it also leaves pictures there."""

import os
import shutil
import sys

from browser import Browser
from world import World

PHONE, TABLET = (360, 740), (1024, 1366)
MARKUP = "<img src=x onerror=document.title='broken'>"


def fill(hub, edge):
    """A small fleet: agents that live and one that is gone, a command on its way, something owed."""
    for number in range(6):
        node = (hub, edge)[number % 2]
        node.json("POST", "/api/v1/agents", {"agent_id": f"a{number}", "name": f"vehicle {number}", "group": "north"})
    edge.json("POST", "/api/v1/agents", {"agent_id": MARKUP, "name": MARKUP, "group": MARKUP, "version": MARKUP})
    hub.json("POST", "/api/v1/agents/a1/commands", {"type": "config-update", "ttl_s": 0})
    hub.json("POST", "/api/v1/agents/groups/north/commands", {"type": MARKUP, "ttl_s": 0})
    edge.json("POST", "/api/v1/agents/a1/commands", {"type": "replay"})


def fleet(browser, world, shots):
    hub, edge = world.pair()
    fill(hub, edge)
    tab = browser.open(f"http://127.0.0.1:{hub.port}/", *PHONE)
    tab.wait_for("all agents are shown", "document.querySelectorAll('#list tr').length === 8")
    tab.wait_for("the commands are shown", "document.querySelectorAll('#flight tr').length === 4")
    assert tab.text("#name") == "hub" and tab.text("#peers").count("edge") == 1
    assert tab.run("document.querySelectorAll('#map .dot.LIVE').length") == 7, "one dot for each agent"
    assert tab.run("document.querySelectorAll('#map line').length") == 1, "one line for the link"
    assert MARKUP in tab.text("#list") and tab.run("document.images.length") == 0 and tab.run("document.title") == "hub"
    assert "All is well" in tab.text("#verdict")
    fits(tab)
    if shots:
        for name, size, dark in [("phone-dark", PHONE, True), ("phone-light", PHONE, False),
                                 ("tablet-dark", TABLET, True), ("tablet-light", TABLET, False)]:
            tab.resize(*size, dark)
            tab.shoot(f"{shots}/{name}.png")
        tab.resize(*PHONE, True)
    tab.run("[...document.querySelectorAll('#counts button')][2].click()")
    tab.wait_for("only the dead are listed", "document.querySelector('#list').innerText === 'None.'")
    edge.stop()
    tab.wait_for("the peer that left is named", "/edge not connected/.test(document.querySelector('#verdict').innerText)")
    tab.wait_for("its link is dashed", "document.querySelectorAll('#map line.away').length === 1")
    if shots:
        tab.run("[...document.querySelectorAll('#counts button')][2].click()")
        tab.shoot(f"{shots}/peer-away.png")
    hub.stop()
    tab.wait_for("the page says that it is cut off", "!document.querySelector('#lost').hidden")
    assert tab.run("document.body.classList.contains('old')")
    if shots:
        tab.shoot(f"{shots}/lost.png")
    hub.listen = f"127.0.0.1:{hub.port}"
    hub.start()
    tab.wait_for("the page comes back", "document.querySelector('#lost').hidden")
    own = f"http://127.0.0.1:{hub.port}/"
    assert tab.asked() and all(url.startswith((own, "data:")) for url in tab.asked()), set(tab.asked())
    assert not tab.complaints(), tab.complaints()


def fits(tab):
    """Nothing sticks out at the side."""
    assert tab.run("document.documentElement.scrollWidth <= innerWidth"), tab.run("document.documentElement.scrollWidth")


def token(browser, world, shots):
    secret = "a-token-of-sixteen-bytes-or-more"
    node = world.node("guarded", "--api-token-file", world.file("token", secret))
    assert node.ask("GET", "/api/v1/overview")[0] == 401
    assert node.ask("GET", "/api/v1/overview", token=secret)[0] == 200
    tab = browser.open(f"http://127.0.0.1:{node.port}/", *PHONE)
    tab.wait_for("the page asks for the token", "!document.querySelector('#ask').hidden")
    assert tab.run("document.querySelector('#all').hidden")
    if shots:
        tab.shoot(f"{shots}/token.png")
    give = "document.querySelector('#token').value = '%s'; document.querySelector('#ask button').click()"
    tab.run(give % "another one")
    tab.wait_for("it was the wrong one", "document.querySelector('#wrong').innerText !== ''")
    tab.run(give % secret)
    tab.wait_for("the fleet is shown", "!document.querySelector('#all').hidden")
    assert secret not in tab.run("document.documentElement.outerHTML") and secret not in "".join(tab.asked())
    fits(tab)
    tab.call("Page.reload")
    tab.wait_for("it is remembered", "document.querySelector('#all') && !document.querySelector('#all').hidden")
    assert not tab.complaints(), tab.complaints()


def nobody(browser, world, shots):
    """A node alone, without anything."""
    node = world.node("alone")
    tab = browser.open(f"http://127.0.0.1:{node.port}/", *PHONE)
    tab.wait_for("the page is there", "document.querySelector('#verdict')?.innerText === 'All is well.'")
    assert "No peers are known." in tab.text("#peers") and "No agents are known." in tab.text("#list")
    fits(tab)
    if shots:
        tab.shoot(f"{shots}/alone.png")


def main(program, shots=None):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        print("no Chromium is installed (apt-get install chromium)")
        sys.exit(77)
    if shots:
        os.makedirs(shots, exist_ok=True)
    for test in (fleet, token, nobody):
        with World(program) as world, Browser(chromium) as browser:
            test(browser, world, shots)
        print(f"{test.__name__} ... ok", flush=True)


main(*sys.argv[1:])
