// SPDX-License-Identifier: GPL-2.0
//
// The ID does not fit behind that address.
//
// Expect: ADDR 0xfffffffffffffff8 is not in reserved memory

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG18", 1)
{
    Scope (\_SB)
    {
        Device (SG18)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "last")
            Name (ADDR, Package () { 0xFFFFFFF8, 0xFFFFFFFF })
        }
    }
}
