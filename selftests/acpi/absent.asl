// SPDX-License-Identifier: GPL-2.0
//
// A malformed device, but its status says that it is not there.
//
// Expect: absent

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG19", 1)
{
    Scope (\_SB)
    {
        Device (SG19)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "absent")
            Name (_STA, Zero)
            Name (ADDR, Package () {})
        }
    }
}
