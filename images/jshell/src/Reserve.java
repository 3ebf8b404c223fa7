/** Memory that code cannot take: it is for telling that there is none left. */
final class Reserve {
    private static final int BYTES = 2 << 20;

    private byte[] kept = new byte[BYTES];

    void release() {
        kept = null;
    }

    /** Without room for it the next failure may be told in fewer words. */
    void renew() {
        try {
            kept = kept == null ? new byte[BYTES] : kept;
        } catch (OutOfMemoryError full) {
            kept = null;
        }
    }
}
