// SPDX-License-Identifier: GPL-2.0
//
// The address is in memory that the kernel uses.
//
// Expect: ADDR 0x200000 is not in reserved memory

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG14", 1)
{
    Scope (\_SB)
    {
        Device (SG14)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "ram")
            Name (ADDR, Package () { 0x00200000, 0x00000000 })
        }
    }
}
