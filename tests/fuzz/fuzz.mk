# Fuzz targets (libFuzzer). Every tests/fuzz/X_fuzz.c becomes $(BUILD)/fuzz/X_fuzz, linked with all
# layers, which are compiled once more with clang and the sanitizers. `make fuzz` runs each for
# FUZZ_SECONDS from the corpus tests/fuzz/corpus/X (FUZZ_KEEP=1 adds inputs that reach new code);
# failing inputs are left in $(BUILD)/fuzz/X_fuzz-*. FUZZ_TARGETS="codec wal" runs only these.
# FUZZ_WORLD are those that run a whole node on the simulator's disk, network and stores.
FUZZ_SECONDS ?= 20
FUZZ_CC ?= clang
# The sanitized codecs take minutes to compile at -O2; printing and random messages even at -O1.
FUZZ_OPT := -O1
FUZZ_CFLAGS = $(BASE_CFLAGS) $(FUZZ_OPT) -DLEAT_DEBUG -DLEAT_FUZZ -DLEAT_PLANT \
	-DWAL_SEGMENT_BYTES_MIN=32768 -DTOPIC_PARTITIONS_MAX=1000 \
	-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
fuzz_obj = $(patsubst %.c,$(BUILD)/fuzz/obj/%.o,$(1))
FUZZ_LIB := $(BUILD)/fuzz/libleat.a
FUZZ_TARGETS ?= $(patsubst tests/fuzz/%_fuzz.c,%,$(wildcard tests/fuzz/*_fuzz.c))
FUZZ_PROGRAMS = $(patsubst %,$(BUILD)/fuzz/%_fuzz,$(FUZZ_TARGETS))

$(BUILD)/fuzz/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call quiet,CC)$(CCACHE) $(FUZZ_CC) $(FUZZ_CFLAGS) -c $< -o $@
$(BUILD)/fuzz/obj/net/codec_print.o $(BUILD)/fuzz/obj/net/codec_random.o: FUZZ_OPT := -O0
$(FUZZ_LIB): $(call fuzz_obj,$(foreach l,$(LAYERS) real,$($(l)_SRC)))
	@rm -f $@
	$(call quiet,AR)ar rcs $@ $^
FUZZ_WORLD := node start recover
FUZZ_HELP := $(call fuzz_obj,tests/fuzz/repair.c tests/fuzz/choice.c tests/fuzz/canary.c)
FUZZ_WORLD_OBJ := $(call fuzz_obj,tests/fuzz/world.c tests/fuzz/world_base.c tests/fuzz/damage.c tests/fuzz/visitor.c \
	$(filter-out tests/sim/load% tests/sim/model.c tests/sim/sim_main.c tests/sim/sim_run.c,$(sim_SRC)))
$(patsubst %,$(BUILD)/fuzz/%_fuzz,$(FUZZ_WORLD)): $(FUZZ_WORLD_OBJ)
$(patsubst %,$(BUILD)/fuzz/%_fuzz,$(FUZZ_WORLD)): FUZZ_WRAP = $(SIM_WRAP) -Wl,--wrap=fatal
$(BUILD)/fuzz/%_fuzz: $(BUILD)/fuzz/obj/tests/fuzz/%_fuzz.o $(FUZZ_HELP) $(FUZZ_LIB)
	$(call quiet,LD)$(FUZZ_CC) $(FUZZ_CFLAGS) -fsanitize=fuzzer -o $@ $(filter %.o,$^) $(FUZZ_LIB) $(FUZZ_WRAP) $(LIBS)

# In the order of include/plant.h: each target must find its own planted defect, starting from its corpus.
FUZZ_CANARIES := codec batch compress config wal bundle stored start node backup recover
FUZZ_CANARY_SECONDS ?= 300

.PHONY: fuzz fuzz-programs fuzz-canaries
fuzz-canaries: $(patsubst %,$(BUILD)/fuzz/%_fuzz,$(FUZZ_CANARIES))
	@tests/fuzz/canaries.sh $(FUZZ_CANARY_SECONDS) $^
fuzz-programs: $(FUZZ_PROGRAMS)
fuzz: $(FUZZ_PROGRAMS)
	@tests/fuzz/run.sh $(FUZZ_SECONDS) $(FUZZ_PROGRAMS)
