    // Behind the sums of a tile: of each column of its blocks of 64 rows, the mean less the block's first row, and M2, the sum of squared
    // deviations, as batch norm's `combine` takes them: partials [blocks][2][channels] (src/ops/normalization/statistics.rs).
    // Thread (across, down) of 16 x 16 holds sum{i}_{q}: row i / 4 * 64 + down * 4 + i % 4, columns q * 64 + across * 4 of the tile. Threads
    // of one column meet in the workgroup memory of the tiles (ONE and TWO), and one adds them up in order. Differences from a row of the
    // block keep the digits of means far from 0.
    // The tile begins at row tile_row of tile_rows and at column tile_column of tile_columns, of which the first is channel first_channel.
    {% for h in range(H) %}
    {% for q in range(H) %}
    {
        let row = tile_row + {{ 64 * h }}u;
        workgroupBarrier();
        if (down == 0u) {
            {{ TWO }}[across] = sum{{ 4 * h }}_{{ q }};
        }
        workgroupBarrier();
        let shift = {{ TWO }}[across];
        var s = vec4<f32>();
        var m = vec4<f32>();
        {% for i in range(4) %}
        if (row + down * 4u + {{ i }}u < tile_rows) {
            let d = sum{{ 4 * h + i }}_{{ q }} - shift;
            s += d;
            m = fma(d, d, m);
        }
        {% endfor %}
        workgroupBarrier();
        {{ ONE }}[local] = s;
        {{ TWO }}[local] = m;
        workgroupBarrier();
        let column = tile_column + {{ 64 * q }}u + across * 4u;
        if (down == 0u && row < tile_rows && column < tile_columns) {
            for (var other = 16u; other < 256u; other += 16u) {
                s += {{ ONE }}[other + across];
                m += {{ TWO }}[other + across];
            }
            let mean = s / f32(min(64u, tile_rows - row));
            m = max(m - s * mean, vec4<f32>());
            let to = row / 64u * 2u * channels + first_channel + column;
            {% if VECTOR_PARTIALS %}
            store4_partials(to / 4u, mean);
            store4_partials((to + channels) / 4u, m);
            {% else %}
            {% for j in range(4) %}
            if (column + {{ j }}u < tile_columns) {
                store_partials(to + {{ j }}u, mean[{{ j }}]);
                store_partials(to + channels + {{ j }}u, m[{{ j }}]);
            }
            {% endfor %}
            {% endif %}
        }
    }
    {% endfor %}
    {% endfor %}
