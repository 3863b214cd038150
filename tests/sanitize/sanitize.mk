# `make sanitize`: anything a sanitizer reports fails. Lane a: AddressSanitizer and UBSan over all unit
# tests, the simulator and a whole node; lane b: ThreadSanitizer over the tests that use threads and a
# whole node. A node has two shards and one address (net.advertise=node), so that every other request
# is for partitions of the shard that did not receive it; it takes the loads of tests/crash/stress,
# the raw protocol and two clients. docs/testing.md says what each can't see.
#
# Not set: detect_stack_use_after_return, which in gcc before 12.4 breaks the alignment of locals
# aligned to 64 (GCC bug 110027; here the state of XXH3). The simulator's processes end by _exit and
# leave killed nodes behind in memory: leaks are looked for in unit tests and nodes only.
SANITIZE_SEEDS ?= 100
SANITIZE_SECONDS ?= 2
SANITIZE_E2E := raw_ kcat confluent
SANITIZER_OPTIONS := UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1
THREADED_TESTS := mailbox_test io_test log_test metrics_test
CANARIES := $(if $(filter thread,$(SAN)),race,overflow arena leak undefined)

.PHONY: sanitize unit-threaded canaries sim-sanitized node-load node-e2e
unit-threaded: $(addprefix $(BUILD)/unit/,$(THREADED_TESTS))
	@tests/run_units.sh $^
$(BUILD)/canary: $(call obj,tests/sanitize/canary.c) $(call lib,base) $(REAL)
	$(LINK)
canaries: $(BUILD)/canary
	@p=0; f=0; for name in $(CANARIES); do \
		if $< $$name 2>/dev/null; then echo "$$name: not seen"; f=$$((f + 1)); else p=$$((p + 1)); fi; \
		done; echo "canaries: $$p passed, $$f failed"; [ $$f = 0 ]
sim-sanitized: sim-build
	@ASAN_OPTIONS=detect_leaks=0 $(SIM_BUILD)/simulator -n $(SANITIZE_SEEDS) -j $(JOBS) -l tests/sim/seeds
node-load: $(BUILD)/leat $(BUILD)/leat-bench
	@BUILD=$(BUILD) tests/crash/stress --seconds $(SANITIZE_SECONDS) --shards 2 --any-memory --limit 30
node-e2e: $(BUILD)/leat
	@BUILD=$(BUILD) tests/e2e/run --jobs 2 --title node-e2e $(if $(filter thread,$(SAN)),--slow-build) \
		-w core.shards=2 --only $(SANITIZE_E2E)

sanitize: deps
	@$(SANITIZER_OPTIONS) tests/run_all \
		"asan-canaries=a=$(SUB) SAN=address canaries" \
		"asan-unit=a=$(SUB) SAN=address unit" \
		"asan-sim=a=$(SUB) SAN=address JOBS=1 sim-sanitized" \
		"asan-load=a=$(SUB) SAN=address node-load" \
		"asan-e2e=a=$(SUB) SAN=address node-e2e" \
		"tsan-canaries=b=$(SUB) SAN=thread canaries" \
		"tsan-unit=b=$(SUB) SAN=thread unit-threaded" \
		"tsan-load=b=$(SUB) SAN=thread node-load" \
		"tsan-e2e=b=$(SUB) SAN=thread node-e2e"
