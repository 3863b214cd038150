# The simulator has objects of its own: costly checks are on, segments may be smaller.
SEEDS ?= 10000
FIRST ?= 1
JOBS ?= 2
SIM_CFLAGS := -DLEAT_DEBUG -DWAL_SEGMENT_BYTES_MIN=65536
SIM_WRAP := $(foreach f,rng_seed_os mkdir open flock close mem_map,-Wl,--wrap=$(f))
SIM_BUILD := $(BUILD)/sim
SIM_PLANT_BUILD := $(BUILD)/sim-plant

# $(BUILD)/simulator: built by a make of its own with BUILD and CFLAGS set.
$(BUILD)/simulator: $(call lib,sim) $(LIB_ALL)
	$(LINK) $(SIM_WRAP)

.PHONY: sim sim-quick sim-plants sim-build
sim-build:
	@$(MAKE) --no-print-directory BUILD=$(SIM_BUILD) CFLAGS='$(SIM_CFLAGS)' $(SIM_BUILD)/simulator

# SEEDS=10000 seeds from FIRST on; SEED=n one seed, with a trace.
sim: sim-build
ifdef SEED
	$(SIM_BUILD)/simulator -S $(SEED) -v
else
	$(SIM_BUILD)/simulator -n $(SEEDS) -s $(FIRST) -j $(JOBS) -l tests/sim/seeds
endif

# Every seed that once found a bug, and 200 more.
sim-quick: sim-build
	@$(SIM_BUILD)/simulator -n 200 -j $(JOBS) -l tests/sim/seeds

# The simulator must find each planted bug (include/plant.h).
sim-plants:
	@$(MAKE) --no-print-directory BUILD=$(SIM_PLANT_BUILD) CFLAGS='$(SIM_CFLAGS) -DLEAT_PLANT' $(SIM_PLANT_BUILD)/simulator
	@for p in 1 2 3; do \
		$(SIM_PLANT_BUILD)/simulator -p $$p -n 1000 -j $(JOBS) > $(SIM_PLANT_BUILD)/plant-$$p.txt \
		&& echo "plant $$p: found, $$(grep -m1 FAILED $(SIM_PLANT_BUILD)/plant-$$p.txt)" \
		|| { echo "plant $$p: NOT FOUND in 1000 seeds"; exit 1; }; done
