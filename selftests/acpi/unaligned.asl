// SPDX-License-Identifier: GPL-2.0
//
// The address is not aligned to 8 bytes, in the memory of reserved.asl.
//
// Expect: ADDR 0xf0004 is not aligned to 8 bytes

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG13", 1)
{
    Scope (\_SB)
    {
        Device (SG13)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "unaligned")
            Name (ADDR, Package () { 0x000F0004, 0x00000000 })
        }
    }
}
