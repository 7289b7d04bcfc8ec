// SPDX-License-Identifier: GPL-2.0
//
// The first half of the ID is in memory that the kernel may use, the second in reserved memory.
//
// Expect: ADDR 0x9fbf8 is not in reserved memory

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG15", 1)
{
    Scope (\_SB)
    {
        Device (SG15)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "straddling")
            Name (ADDR, Package () { 0x0009FBF8, 0x00000000 })
        }
    }
}
