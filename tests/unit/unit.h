/* What cmocka wants included before itself. */
#ifndef LEAT_UNIT_H
#define LEAT_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
