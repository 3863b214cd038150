"""Puts that are sent twice: tests of tests/s3/run.

Each has a proxy of its own. Which of two requests for one put reaches the store first, and what the store makes of the
other, is the proxy's to say; the driver's test program (driver_puts.c) holds the objects to what was put.
"""
import re


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


def tests(run):
    return [("puts-hedged-late", test_hedged, run, "versitygw", "slow_put"),
            ("puts-hedged-answer", test_hedged, run, "versitygw", "slow_put_done"),
            ("puts-hedged-plain", test_hedged, run, "moto", "slow_put", True),
            ("puts-hedged-off", test_not_hedged, run, "off"),
            ("puts-hedged-throttled", test_not_hedged, run, "throttled")]
