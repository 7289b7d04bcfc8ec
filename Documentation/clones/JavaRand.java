// SPDX-License-Identifier: MIT OR Apache-2.0

import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.RandomAccessFile;
import java.io.UncheckedIOException;
import java.security.DrbgParameters;
import java.security.GeneralSecurityException;
import java.security.SecureRandom;
import java.util.HexFormat;
import java.util.Random;

/**
 * Draws by the generator that is asked for: each line on standard input is answered with one on
 * standard output, 16 bytes in hexadecimal. "default" is one SecureRandom, of the kind that Java
 * chooses; "drbg" is one of Java's own; "heedful" is the same, seeded anew after each change of the
 * generation; "random" is java.util.Random.
 */
public final class JavaRand {
    private static final File NODE = new File("/dev/sysgenid");

    /** How many changes there were. */
    private static volatile int changes;

    private JavaRand() {
    }

    /** Has a thread wait for changes, and acknowledge them; there are none without the device. */
    private static void watch() throws IOException {
        // A file that is not there would be made.
        if (!NODE.exists()) {
            return;
        }
        RandomAccessFile node = new RandomAccessFile(NODE, "rw");
        Thread watcher = new Thread(() -> {
            byte[] generation = new byte[4];
            try {
                while (node.read(generation) == generation.length) {
                    changes++;
                    node.write(generation);
                }
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        });
        watcher.setDaemon(true);
        watcher.start();
    }

    /**
     * Seeds a generator from the kernel. reseed() would take the seed of a DRBG from another one in
     * this program, which is as old.
     */
    private static void seed(SecureRandom random) throws IOException {
        try (InputStream kernel = new FileInputStream("/dev/urandom")) {
            random.setSeed(kernel.readNBytes(32));
        }
    }

    private static SecureRandom drbg() throws GeneralSecurityException {
        return SecureRandom.getInstance("DRBG",
                DrbgParameters.instantiation(256, DrbgParameters.Capability.RESEED_ONLY, null));
    }

    public static void main(String[] arguments) throws IOException, GeneralSecurityException {
        String which = arguments[0];
        Random random = switch (which) {
            case "default" -> new SecureRandom();
            case "drbg", "heedful" -> drbg();
            case "random" -> new Random();
            default -> throw new IllegalArgumentException(which);
        };
        if (which.equals("heedful")) {
            watch();
        }
        BufferedReader questions = new BufferedReader(new InputStreamReader(System.in));
        byte[] bytes = new byte[16];
        int seen = 0;
        while (questions.readLine() != null) {
            random.nextBytes(bytes);
            // What was drawn across a change is thrown away.
            for (int now = changes; now != seen; now = changes) {
                seed((SecureRandom) random);
                seen = now;
                random.nextBytes(bytes);
            }
            System.out.println(HexFormat.of().formatHex(bytes));
        }
    }
}
