// SPDX-License-Identifier: MIT OR Apache-2.0

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.security.SecureRandom;
import java.util.HexFormat;

/**
 * Draws by one SecureRandom, of the kind that Java chooses: each line on standard input is
 * answered with one on standard output, 16 bytes in hexadecimal.
 */
public final class JavaRand {
    private JavaRand() {
    }

    public static void main(String[] arguments) throws IOException {
        SecureRandom random = new SecureRandom();
        BufferedReader questions = new BufferedReader(new InputStreamReader(System.in));
        byte[] bytes = new byte[16];
        while (questions.readLine() != null) {
            random.nextBytes(bytes);
            System.out.println(HexFormat.of().formatHex(bytes));
        }
    }
}
