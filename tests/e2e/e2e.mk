# make test: everything that must hold, in well under 45 minutes on two cores. make soak: the long ones.
FUZZ_TEST_SECONDS ?= 5
CRASH_ROUNDS ?= 5
SOAK_CRASH_ROUNDS ?= 200
SOAK_FUZZ_SECONDS ?= 620
# Under net.advertise=shard the routes differ, not the protocol.
SHARD_TESTS := kcat confluent franz java_group java_admin raw_produce raw_fetch raw_group raw_every raw_metadata
# Latency and throughput beside each other: on processors of their own (make s3).
MEASURED := object-latency object-slow-puts object-throughput
SUB := $(MAKE) --no-print-directory

.PHONY: test test-parts soak e2e crash real-input
# Sub-make, because the packages must be there before the compiler is asked anything.
test: deps
	@$(SUB) -j2 all unit-programs s3-driver
	@$(SUB) test-parts

# Lane a needs processors, lane b mostly waits for clients and their JVMs, lanes c and d for outages and clocks.
test-parts:
	@tests/run_all \
		"unit=a=$(SUB) unit" \
		"tidy=a=$(SUB) tidy" \
		"sim=a=$(SUB) sim-quick-short" \
		"sim-long=a=$(SUB) sim-quick-long" \
		"sim-replay=a=$(SUB) sim-replay" \
		"schema=a=$(SUB) schema-check" \
		"codec=a=$(SUB) codec-peer" \
		"fuzz=a=$(SUB) fuzz FUZZ_SECONDS=$(FUZZ_TEST_SECONDS)" \
		"e2e=b=tests/e2e/run --jobs 3" \
		"e2e-shard=b=tests/e2e/run --jobs 3 --title e2e-shard -w net.advertise=shard --only $(SHARD_TESTS)" \
		"crash=b=tests/crash/run --rounds $(CRASH_ROUNDS)" \
		"restart=b=tests/crash/restart --mib 256 --rounds 1 --limit 3" \
		"recover=b=tests/crash/recover" \
		"stress=b=tests/crash/stress --seconds 2 --shards 2" \
		"real-input=b=tests/e2e/real_input.sh" \
		"s3=c=tests/s3/run --without $(MEASURED) puts- node-outage" \
		"s3-outage=d=tests/s3/run --only node-outage" \
		"s3-puts=d=tests/s3/run --only puts-"

e2e: $(BUILD)/leat
	tests/e2e/run
crash: $(BUILD)/leat
	tests/crash/run --rounds $(CRASH_ROUNDS)
real-input: $(BUILD)/leat
	tests/e2e/real_input.sh --full

# Hours: what the promises are measured with.
soak: deps
	@$(SUB) -j2 all
	@tests/run_all \
		"real-input=a=tests/e2e/real_input.sh --full" \
		"crash=a=tests/crash/run --rounds $(SOAK_CRASH_ROUNDS)" \
		"restart=a=tests/crash/restart --mib 1500 --rounds 3" \
		"recover=a=tests/crash/recover --gib 20 -w wal.size=1g -w memory.budget=512m" \
		"stress=a=tests/crash/stress --seconds 20" \
		"s3=a=$(SUB) s3" \
		"sim=a=$(SUB) sim SEEDS=10000" \
		"sim-long=a=$(SUB) sim-long SEEDS=10000" \
		"fuzz=a=$(SUB) fuzz FUZZ_SECONDS=$(SOAK_FUZZ_SECONDS)"
