/**
 * Memory that user code cannot use. It is released when the code runs out of memory, so that the failure can be
 * reported.
 */
final class Reserve {
    private static final int BYTES = 2 << 20;

    private byte[] kept = new byte[BYTES];

    void release() {
        kept = null;
    }

    /** Allocates the reserve again. If there is no room for it, the next report may be less detailed. */
    void renew() {
        try {
            kept = kept == null ? new byte[BYTES] : kept;
        } catch (OutOfMemoryError full) {
            kept = null;
        }
    }
}
