// SPDX-License-Identifier: GPL-2.0
//
// ADDR is a method that does not get to its end.
//
// Expect: cannot evaluate ADDR: AE_AML_DIVIDE_BY_ZERO

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG02", 1)
{
    Scope (\_SB)
    {
        Device (SG02)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "failing")
            Method (ADDR)
            {
                Local0 = Zero
                Return (One / Local0)
            }
        }
    }
}
