/** A part of the code of one execution: enough to say where in it something is. */
record Source(int execution, String code, int start) {
    /** The line, from 1, of an offset in this part. */
    int line(long offset) {
        return 1 + (int) code.substring(0, position(offset)).chars().filter(c -> c == '\n').count();
    }

    /** That line and, below it, a caret at the offset. */
    String[] quote(long offset) {
        int position = position(offset);
        int begin = code.lastIndexOf('\n', position - 1) + 1;
        int end = code.indexOf('\n', position);
        String line = code.substring(begin, end < 0 ? code.length() : end);
        // Tabs stay tabs, so that the caret stands under its character.
        String indent = code.substring(begin, position).replaceAll("[^\t]", " ");
        return new String[] {line, indent + "^"};
    }

    private int position(long offset) {
        return Math.clamp(start + offset, 0, code.length());
    }
}
