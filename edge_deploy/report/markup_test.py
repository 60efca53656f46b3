import html

from hypothesis import given
from hypothesis import strategies as st

from edge_deploy.report.markup import Markup, element, join, plain


def test_children_are_escaped_unless_they_are_markup():
    assert element("b", "<i>", element("i", "a & b")) == "<b>&lt;i&gt;<i>a &amp; b</i></b>"
    assert element("p", ("x", ("y", Markup("<br>")))) == "<p>xy<br></p>"


def test_attributes_are_escaped_and_absent_ones_left_out():
    built = element("a", "t", attributes={"title": '"><script>', "open": None, "x": 1.504}, css="c")
    assert built == '<a class="c" title="&quot;&gt;&lt;script&gt;" x="1.5">t</a>'


def test_void_elements_have_no_end():
    assert element("meta", attributes={"charset": "utf-8"}) == '<meta charset="utf-8">'


@given(st.text())
def test_no_text_can_open_a_tag_or_end_an_attribute(text):
    written = plain(text)
    assert not set(written) & set("<>\"'")
    assert html.unescape(written).replace("�", "") == "".join(
        c for c in text if c in html.unescape(written) and c != "�"
    )
    assert join([text]) == written
