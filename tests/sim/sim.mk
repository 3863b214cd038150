# The simulator has objects of its own: costly checks are on, segments may be smaller.
SEEDS ?= 10000
FIRST ?= 1
JOBS ?= 2
SIM_CFLAGS := -DLEAT_DEBUG -DWAL_SEGMENT_BYTES_MIN=65536 -DBUNDLE_LARGE_BATCH=1500u -DSCAN_READ_BYTES=8192u -DTURN_BULK_BYTES=4000u -DSEND_BYTES_MAX=5000u -DDISK_CACHE_BLOCK_BYTES=8192u
SIM_WRAP := $(foreach f,rng_seed_os mkdir open flock close mem_map mem_unmap,-Wl,--wrap=$(f))
SIM_BUILD := $(BUILD)/sim
SIM_PLANT_BUILD := $(BUILD)/sim-plant

# $(BUILD)/simulator: built by a make of its own with BUILD and CFLAGS set.
$(BUILD)/simulator: $(call lib,sim) $(LIB_ALL)
	$(LINK) $(SIM_WRAP)

.PHONY: sim sim-long sim-quick sim-quick-short sim-quick-long sim-replay sim-plants sim-build
sim-build:
	@$(MAKE) --no-print-directory BUILD=$(SIM_BUILD) CFLAGS='$(SIM_CFLAGS)' $(SIM_BUILD)/simulator

# SEEDS=10000 seeds from FIRST on; SEED=n one seed, with a trace.
sim: sim-build
ifdef SEED
	$(SIM_BUILD)/simulator -S $(SEED) -v
else
	$(SIM_BUILD)/simulator -n $(SEEDS) -s $(FIRST) -j $(JOBS) -l tests/sim/seeds
endif

# Every seed that once found a bug, and 200 more; of sim-long 20.
sim-quick: sim-quick-short sim-quick-long sim-replay
sim-quick-short: sim-build
	@$(SIM_BUILD)/simulator -n 200 -j $(JOBS) -l tests/sim/seeds
sim-quick-long: sim-build
	@$(SIM_BUILD)/simulator -L -n 20 -j $(JOBS) -l tests/sim/seeds-long

# The same seed, the same run, wherever memory lies. These once went two ways, with one in three.
sim-replay: sim-build
	@p=0; f=0; for seed in 2 3 4 9 11 15 18 24; do \
		a=$$($(SIM_BUILD)/simulator -L -S $$seed | tail -1); \
		b=$$(GLIBC_TUNABLES=glibc.malloc.tcache_count=0 $(SIM_BUILD)/simulator -L -S $$seed | tail -1); \
		if [ "$$a" = "$$b" ]; then p=$$((p + 1)); else f=$$((f + 1)); printf '%s\n' "$$a" "$$b"; fi; \
		done; echo "sim-replay: $$p passed, $$f failed"; [ $$f = 0 ]

# SEEDS seeds from FIRST on that live for ten simulated minutes and longer, and are killed at every step.
sim-long: sim-build
ifdef SEED
	$(SIM_BUILD)/simulator -L -S $(SEED) -v
else
	$(SIM_BUILD)/simulator -L -n $(SEEDS) -s $(FIRST) -j $(JOBS) -l tests/sim/seeds-long
endif

# The simulator must find each planted bug (include/plant.h); with LONG=1 seeds of sim-long must. What
# only they can show: listings that are old.
SIM_PLANTS_LONG := OLD_LISTED_AGAIN
sim-plants:
	@$(MAKE) --no-print-directory BUILD=$(SIM_PLANT_BUILD) CFLAGS='$(SIM_CFLAGS) -DLEAT_PLANT' $(SIM_PLANT_BUILD)/simulator
	@n=0; for name in ACK_BEFORE_FLUSH SKIP_FRAME TRIM_BEFORE_REGISTER CLEAN_DROPS_LAST \
			RUN_BEFORE_OBJECT RUN_FORGETS_COVER MERGE_LOSES_BLOCK \
			REMOVE_BEFORE_COMMIT ORPHAN_RUNS_STAY ACK_BEFORE_REGISTER RECOVER_SKIPS \
			DISCARD_LIVE UPLOAD_LEAVES_RUNS CLONE_UNCOUNTED DISK_UNCHECKED OLD_LISTED_AGAIN \
			FIRST_OBJECT_IS_ALL; do \
		n=$$((n + 1)); out=$(SIM_PLANT_BUILD)/plant-$$n.txt; \
		long=$(if $(LONG),-L); case " $(SIM_PLANTS_LONG) " in *" $$name "*) long=-L;; esac; \
		$(SIM_PLANT_BUILD)/simulator $$long -p $$n -n 1000 -j $(JOBS) > $$out \
			|| { echo "PLANT_$$name: NOT FOUND in 1000 seeds"; exit 1; }; \
		echo "PLANT_$$name: found by $$(sed -n 's/^sim: \(seed [0-9]*\) FAILED.*/\1/p' $$out | head -1):" \
			"$$(sed -n 2p $$out | cut -c1-150)"; done
