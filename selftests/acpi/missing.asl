// SPDX-License-Identifier: GPL-2.0
//
// There is no ADDR.
//
// Expect: cannot evaluate ADDR: AE_NOT_FOUND

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG01", 1)
{
    Scope (\_SB)
    {
        Device (SG01)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "missing")
        }
    }
}
