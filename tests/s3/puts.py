"""Puts that are sent twice, and objects that are uploaded in parts: tests of tests/s3/run.

Each has a proxy of its own. Which of two requests for one put reaches the store first, and what the store makes of the
other, is the proxy's to say; the driver's test program (driver_puts.c) holds the objects to what was put.
"""
import re
import urllib.request

MIB = 2**20
LARGE = 40 * MIB + 12345  # driver_puts.c


class Proxy:
    """A fault proxy for the time of one test."""

    def __init__(self, run, server, mode, every=1, **more):
        self.port = run.harness.free_ports(1)
        self.proxy = run.FaultProxy(self.port, server.port, mode=mode, every=every)
        for name, value in {"port": self.port, **more}.items():
            setattr(self.proxy, name, value)

    def __enter__(self):
        return self.proxy

    def __exit__(self, *_):
        self.proxy.close()


def metric(out, name, labels=""):
    return int(re.search(rf"^{name}{re.escape(labels)} (\d+)$", out, re.M).group(1))


def test_hedged(world, run, kind, mode, plain=False):
    """One put in fifty takes two seconds. `plain`: a store that does not know If-None-Match."""
    server = world.server(kind)
    with Proxy(run, server, mode, 50, unconditional=plain) as proxy:
        url = server.url(f"hedged-{mode}-{plain}", proxy.port)
        out = run.driver_passes(url, "hedge_put", S3_METRICS="1", S3_LOG="1", **run.KEYS)
        run.need(("event=s3_no_conditional_put" in out) == plain, f"conditional puts: {out[:500]}")
        late, puts = map(int, re.search(r"(\d+) of (\d+) puts were late", out).groups())
        hedges, wins = (metric(out, f"leat_s3_{what}_total", '{op="put"}') for what in ("hedges", "hedge_wins"))
        sent = metric(out, "leat_s3_requests_total", '{op="put",result="abandoned"}')
        print(f"   {proxy.faults} slow puts, {hedges} sent twice, {wins} won; " + out.split("   ", 1)[1].splitlines()[0],
              flush=True)
        # A conditional put that was answered 412 because its twin was first counts as a win, too.
        run.need(proxy.faults >= 5 and wins >= 3, "slow puts were not sent twice")
        run.need(late <= proxy.faults // 3, f"{late} of {puts} puts waited for the slow request")
        run.need(hedges == sent <= 5 + 0.05 * 600, f"{hedges} were sent twice, {sent} counted")


def test_not_hedged(world, run, what):
    """Nothing is sent twice: nobody is told to, or the store throttles."""
    server = world.server("versitygw")
    mode = "slow_put" if what == "off" else "slow_put_throttled"
    with Proxy(run, server, mode, 50) as proxy:
        settings = ["store.s3.hedge_puts=0"] if what == "off" else []
        out = run.driver_passes(server.url("once-" + what, proxy.port), "hedge_put", S3_METRICS="1", settings=settings,
                                **run.KEYS)
        hedges = metric(out, "leat_s3_hedges_total", '{op="put"}')
        run.need(proxy.faults >= 5 and hedges == 0, f"{hedges} puts were sent twice, {proxy.faults} faults")
        run.need((metric(out, "leat_s3_throttles_total") > 0) == (what == "throttled"), "throttles")


def part_settings(connections, *more):
    return ["store.s3.part_bytes=5m", f"store.s3.part_connections={connections}", *more]


def test_parts(world, run):
    """Parts of one object go side by side; not more of them than the class may have."""
    server = world.server("versitygw")
    took = {}
    with Proxy(run, server, "none", late=lambda: 0.3) as proxy:
        for name, settings in (("one", part_settings(1)), ("six", part_settings(6)),
                               ("bounded", part_settings(6, "store.s3.class.upload.connections=1"))):
            out = run.driver_passes(server.url("parts-" + name, proxy.port), "parts", settings=settings, **run.KEYS)
            took[name] = int(re.search(r"nine parts took (\d+) ms", out).group(1))
    print(f"   ms with 0.3 s for each of nine parts: {took}", flush=True)
    run.need(took["one"] >= 2700 and took["bounded"] >= 2700, "parts were not sent one by one")
    run.need(took["six"] < took["one"] - 1000, "parts are not side by side")


def test_parts_fail(world, run, mode, every, retries, first):
    server = world.server("versitygw")
    with Proxy(run, server, mode, every, count=first) as proxy:
        out = run.driver_passes(server.url(f"parts-{mode}-{every}", proxy.port), "parts", S3_METRICS="1",
                                settings=part_settings(4, f"store.s3.retries={retries}"), **run.KEYS)
        sent = metric(out, "leat_s3_bytes_total", '{dir="out"}')
        run.need(proxy.faults >= 2, f"{proxy.faults} faults")
        if mode == "reset_part":
            # Two objects, and no more than the parts that were broken off.
            run.need(sent <= 2 * LARGE + proxy.faults * 5 * MIB + MIB, f"{sent / MIB:.0f} MiB for {proxy.faults} resets")


def unfinished(server):
    """What the store lists. Moto does not ask who wants to know."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/bucket?uploads", timeout=10) as answer:
        return answer.read().decode().count("<Upload>")


def test_abandon(world, run):
    """An upload that fails is aborted."""
    server = world.server("moto")
    before = unfinished(server)
    with Proxy(run, server, "abandon") as proxy:
        out = run.driver_passes(server.url("abandon", proxy.port), "abandon", S3_METRICS="1",
                                settings=part_settings(4, "store.s3.retries=0"), **run.KEYS)
    run.need(unfinished(server) == before, "it is still there")
    run.need(metric(out, "leat_s3_uploads_aborted_total", '{what="failed"}') == 1, "it is not counted")


def test_sweep(world, run, kind):
    """One that was never aborted is found later, one that goes on is left alone."""
    server = world.server(kind)
    with Proxy(run, server, "forsake") as proxy:
        out = run.driver_passes(server.url("sweep", proxy.port), "sweep", S3_METRICS="1",
                                settings=part_settings(4, "store.s3.retries=0", "store.s3.timeout=2s"), **run.KEYS)
    run.need(metric(out, "leat_s3_uploads_aborted_total", '{what="found"}') == 1, "it is not counted")


def tests(run):
    return [("puts-hedged-late", test_hedged, run, "versitygw", "slow_put"),
            ("puts-hedged-answer", test_hedged, run, "versitygw", "slow_put_done"),
            ("puts-hedged-plain", test_hedged, run, "moto", "slow_put", True),
            ("puts-hedged-off", test_not_hedged, run, "off"),
            ("puts-hedged-throttled", test_not_hedged, run, "throttled"),
            ("puts-parts", test_parts, run),
            ("puts-parts-reset", test_parts_fail, run, "reset_part", 4, 4, 0),
            ("puts-parts-500", test_parts_fail, run, "complete500", 2, 4, 1),
            ("puts-parts-bad", test_parts_fail, run, "complete_bad", 2, 4, 1),
            # Its last word is an error, and the object is there.
            ("puts-parts-lie", test_parts_fail, run, "complete_lie", 1, 1, 0),
            ("puts-abandon", test_abandon, run),
            # Moto's uploads all began in 2010.
            ("puts-sweep", test_sweep, run, "versitygw")]
