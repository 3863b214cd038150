# Measuring. `make bench`: a few seconds against Leat and the floor, prints only. `make compare`: side
# by side with Apache Kafka, several minutes; the result goes to perf/results and is to be committed.
# More options through COMPARE, for example: make compare COMPARE="--only peak,half --rounds 5"
COMPARE ?=
.PHONY: bench compare
bench: $(BUILD)/leat $(BUILD)/leat-bench $(BUILD)/leat-floor
	BUILD=$(BUILD) perf/compare --peers leat,floor --rounds 1 --seconds 4 --warmup 1 --no-results $(COMPARE)
compare: $(BUILD)/leat $(BUILD)/leat-bench $(BUILD)/leat-floor
	BUILD=$(BUILD) perf/compare $(COMPARE)

# The generator's own tests, run with the others by `make unit`.
BENCH_TESTED := $(call obj,perf/bench_hist.c perf/bench_proc.c perf/bench_template.c perf/bench_wire.c)
$(BUILD)/unit/bench_test: $(call obj,tests/unit/perf/bench_test.c) $(BENCH_TESTED) $(call lib,base) $(REAL)
	@mkdir -p $(@D)
	$(LINK) -lcmocka
UNIT += $(BUILD)/unit/bench_test
unit: $(BUILD)/unit/bench_test

# What catching up costs those that tail, and how much of the store's speed it gets: minutes.
# More options through ISOLATION, for example: make isolation ISOLATION="--store versitygw"
ISOLATION ?=
$(BUILD)/leat-rangeget: $(call obj,perf/rangeget.c) $(call lib,storage) $(call lib,shard) $(call lib,base) $(REAL)
	$(LINK)
.PHONY: isolation
isolation: $(BUILD)/leat $(BUILD)/leat-bench $(BUILD)/leat-rangeget
	BUILD=$(BUILD) perf/isolation $(ISOLATION)
