# Measuring. `make bench`: a few seconds against Leat and the floor, prints only. `make compare`: side
# by side with Apache Kafka, several minutes; the result goes to perf/results and is to be committed.
# More options through COMPARE, for example: make compare COMPARE="--only peak,half --rounds 5"
COMPARE ?=
.PHONY: bench compare
bench: $(BUILD)/leat $(BUILD)/leat-bench $(BUILD)/leat-floor
	BUILD=$(BUILD) perf/compare --peers leat,floor --rounds 1 --seconds 4 --warmup 1 --no-results $(COMPARE)
compare: $(BUILD)/leat $(BUILD)/leat-bench $(BUILD)/leat-floor
	BUILD=$(BUILD) perf/compare $(COMPARE)
