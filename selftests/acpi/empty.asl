// SPDX-License-Identifier: GPL-2.0
//
// ADDR is a package of nothing.
//
// Expect: ADDR has 0 elements, expected 2

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG06", 1)
{
    Scope (\_SB)
    {
        Device (SG06)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "empty")
            Name (ADDR, Package () {})
        }
    }
}
