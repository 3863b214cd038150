# The s3:// driver against real servers (tests/s3/run).
S3_DRIVER := $(BUILD)/s3-driver
$(S3_DRIVER): $(call obj,tests/s3/driver.c tests/s3/driver_puts.c) $(call lib,storage) $(call lib,shard) $(call lib,base) $(REAL)
	$(LINK)

.PHONY: s3 s3-driver
s3-driver: $(S3_DRIVER)
s3: $(BUILD)/leat $(BUILD)/leat-bench $(S3_DRIVER)
	tests/s3/run
