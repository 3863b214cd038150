# Leat. `make` builds, never needs root. `make run` and `make test` set the machine up first.
# Everything built lands in $(BUILD). SAN=address|undefined|thread builds with that sanitizer;
# address takes undefined along.

BUILD ?= build$(if $(SAN),-$(SAN))
ifeq ($(origin CC),default)
CC := gcc
endif
CCACHE := $(shell command -v ccache 2>/dev/null)
# The codecs under sanitizers take minutes to compile at -O2.
OPT ?= $(if $(SAN),-O1,-O2)
WARN := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Wmissing-prototypes \
	-Wvla -Wcast-qual -Wswitch-enum -Wundef -Wformat=2 -Werror
BASE_CFLAGS := -std=c11 -D_GNU_SOURCE -g -fno-omit-frame-pointer -fno-common -fstack-protector-strong \
	-msse4.2 -mpclmul -Iinclude -Inet/messages -Inet -MMD -MP
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN:address=address,undefined) -fno-sanitize-recover=all -DLEAT_DEBUG)
CFLAGS ?=
ALL_CFLAGS = $(BASE_CFLAGS) $(OPT) $(WARN) $(SANFLAGS) $(CFLAGS)
LIBS := -luring -ldeflate -lxxhash -lsnappy -llz4 -lzstd -llmdb -lmicrohttpd -lcurl -lcrypto -ljansson -lpthread -lm

# Layers, from the bottom up. Each becomes one archive; a test links its own layer and those below.
LAYERS := base shard net storage broker
base_SRC := $(wildcard core/base/*.c)
shard_SRC := $(filter-out core/shard/io_uring.c core/shard/uring_setup.c core/shard/bg.c core/shard/clock.c,$(wildcard core/shard/*.c))
# The link seams: the real I/O, background pool and clock. The simulator links its own instead.
real_SRC := $(wildcard core/shard/io_uring.c core/shard/uring_setup.c core/shard/bg.c core/shard/clock.c)
net_SRC := $(wildcard net/*.c net/messages/*.c)
storage_SRC := $(filter-out storage/show_main.c,$(wildcard storage/*.c))
broker_SRC := $(wildcard core/broker/*.c core/group/*.c core/node/*.c)
sim_SRC := $(wildcard tests/sim/*.c)

# V=1 shows commands in full.
quiet = $(if $(V),,@echo "  $(1)   $@"; )
obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
lib = $(BUILD)/lib$(1).a
LIB_ALL := $(foreach l,broker storage net shard base,$(call lib,$(l)))
REAL := $(call lib,real)

PROGRAMS := $(BUILD)/leat $(BUILD)/leatctl $(BUILD)/leat-bench $(BUILD)/leat-show $(BUILD)/leat-floor $(BUILD)/leat-rangeget
.PHONY: all clean
all: $(PROGRAMS)
.DELETE_ON_ERROR:
.SECONDARY:

# Says which packages are missing, where a compiler's own message would not; once for a build folder.
$(BUILD)/packages.ok:
	@mkdir -p $(@D)
	@! deploy/deps.sh --check build || touch $@

$(BUILD)/obj/%.o: %.c | $(BUILD)/packages.ok
	@mkdir -p $(@D)
	@$(if $(V),echo "$(CC) $(ALL_CFLAGS) -c $<",echo "  CC   $<")
	@$(CCACHE) $(CC) $(ALL_CFLAGS) -c $< -o $@

define layer_rule
$(call lib,$(1)): $(call obj,$($(1)_SRC))
	@rm -f $$@
	$$(call quiet,AR)ar rcs $$@ $$^
endef
$(foreach l,$(LAYERS) real sim,$(eval $(call layer_rule,$(l))))

LINK = $(call quiet,LD)$(CC) $(ALL_CFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS)

$(BUILD)/leat: $(call obj,core/main.c) $(LIB_ALL) $(REAL)
	$(LINK)
$(BUILD)/leatctl: $(call obj,$(wildcard core/leatctl*.c)) $(call lib,base) $(REAL)
	$(LINK)
$(BUILD)/leat-show: $(call obj,storage/show_main.c) $(call lib,storage) $(call lib,net) $(call lib,shard) $(call lib,base) $(REAL)
	$(LINK)
$(BUILD)/leat-bench: $(call obj,$(wildcard perf/bench*.c)) $(call lib,net) $(call lib,base) $(REAL)
	$(LINK)
$(BUILD)/leat-floor: $(call obj,perf/floor.c) $(call lib,base) $(REAL)
	$(LINK)

# ---- unit tests: tests/unit/LAYER/X_test.c, one program each (cmocka) ----
below_base := base
below_shard := shard base
below_net := net shard base
below_storage := storage shard net base
below_broker := broker storage net shard base
define unit_rule
unit_$(1) := $$(patsubst tests/unit/$(1)/%.c,$(BUILD)/unit/%,$$(wildcard tests/unit/$(1)/*_test.c))
$$(unit_$(1)): $(BUILD)/unit/%: $(BUILD)/obj/tests/unit/$(1)/%.o $(foreach b,$(below_$(1)),$(call lib,$(b))) $(REAL)
	@mkdir -p $$(@D)
	$$(LINK) -lcmocka
UNIT += $$(unit_$(1))
endef
$(foreach l,$(LAYERS),$(eval $(call unit_rule,$(l))))
.PHONY: unit unit-programs
unit-programs: $(UNIT)
unit: $(UNIT)
	@tests/run_units.sh $(UNIT)

# ---- fuzz targets: tests/fuzz/X_fuzz.c (libFuzzer, clang) ----
-include $(wildcard tests/fresh/*.mk tests/fuzz/*.mk tests/sim/*.mk tests/e2e/*.mk tests/s3/*.mk tests/crash/*.mk \
	tests/sanitize/*.mk perf/*.mk deploy/*.mk)

clean:
	rm -rf $(BUILD)
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
