/* Where code of QEMU's looks for it. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "../../block-snapshot.h"
