"""The published numbers, and what is found in them."""

import pytest

from r3cnn.reporting.paper import TABLES, Place, Remark, read_paper

PAPER = read_paper()


def found(text: str) -> Remark:
    (remark,) = [each for each in PAPER.remarks if text in each.text]
    return remark


@pytest.mark.parametrize(("table", "rows"), [("table1", 6), ("table2", 6), ("table3", 5), ("table4", 11)])
def test_every_row_is_there_in_its_order(table: str, rows: int) -> None:
    assert [row.row for row in PAPER.rows(table)] == [*range(1, rows + 1)]


def test_values_are_looked_up_by_the_name_of_their_column() -> None:
    naive, gcnet = PAPER.table1[3], PAPER.table4[7]
    assert (naive.value("params_thousand"), naive.value("mask/ap"), naive.value("mask/ap50")) == (43912, 36.8, None)
    assert (gcnet.value("box/ap_large"), gcnet.value("mask/ap_small"), gcnet.value("model_size_mb")) == (
        58.9,
        22.6,
        None,
    )


def test_looser_ious_and_larger_objects_never_score_lower() -> None:
    for row in PAPER.table4:
        for kind in (row.box, row.mask):
            assert kind["ap50"] > kind["ap75"] > kind["ap_small"]
            assert kind["ap_small"] < kind["ap_medium"] < kind["ap_large"]


def test_mask_rcnn_is_printed_with_two_results() -> None:
    remark = found("two results for this system")
    assert "38.2/34.7 in Table 1, Table 2 and Table 3 but 37.3/34.1 in Table 4" in remark.text
    tables = {table for table in TABLES if Place(table, "box/ap", 1) in remark.places}
    assert tables == {*TABLES}
    assert len(remark.places) == 8


def test_one_network_is_printed_with_two_speeds() -> None:
    remark = found("11.5 and 5.4 images per second")
    assert remark.places == (Place("table1", "images_per_second", 1), Place("table1", "images_per_second", 2))


def test_sizes_are_mebibytes_of_weights_and_momentum() -> None:
    assert found("MiB of a training checkpoint").places == (Place("table1", "model_size_mb"),)
    for row in PAPER.table1:
        size = 4 * (2000 * (row.params_thousand or 0) + 225_344)  # the frozen ones are not counted by the paper
        assert size / 2**20 == pytest.approx(row.model_size_mb, abs=2)
        assert size / 10**6 != pytest.approx(row.model_size_mb, abs=2)


def test_the_texts_two_claims_that_the_tables_contradict_are_marked_at_their_numbers() -> None:
    assert found("even worse than Mask R-CNN").places == (Place("table2", "mask/ap", 2),)
    parameters = found("fewer parameters")
    assert "5,902 K more" in parameters.text
    assert parameters.places == (Place("table1", "params_thousand", 6),)


def test_every_remark_belongs_to_a_cell_that_exists() -> None:
    for remark in PAPER.remarks:
        assert remark.places
        for place in remark.places:
            if place.row is not None:
                row = PAPER.rows(place.table)[place.row - 1]
                assert place.quantity == "model" or row.value(place.quantity) is not None
