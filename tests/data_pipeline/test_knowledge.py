import bz2
import gzip
import lzma
import os
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from data_pipeline.knowledge_files import (
    GeneSet,
    Interaction,
    KnowledgeError,
    read_extracellular,
    read_gene_sets,
    read_interactions,
)
from data_pipeline.knowledge_files.gene_sets import readable_name

GMT = (
    "HALLMARK_INTERFERON_ALPHA_RESPONSE\thttp://www.gsea-msigdb.org/x\tIFIT1\tIRF7\tIFIT1\t\n"
    "\n"
    "KEGG_MTOR_SIGNALING_PATHWAY\t\tMtor\tAKT1\r\n"
    "CD4_Naive\tnaive T cells (see http://x)\tCCR7\tSELL\n"
)
CELLPHONEDB = {
    "interaction_input.csv": """id_cp_interaction,partner_a,partner_b,is_ppi,directionality
,P48061,P61073,True,Ligand-Receptor
,P12830,"integrin, a2b1",True,Adhesion-Adhesion
,"integrin, a2b1",P12830,True,Adhesion-Adhesion
,GABA_byGAD1,P61073,False,Ligand-Receptor
,P17302,P17302,True,Gap-Gap
""",
    "gene_input.csv": """gene_name,uniprot,hgnc_symbol,ensembl
CXCL12,P48061,CXCL12,ENSG1
CXCR4,P61073,CXCR4,ENSG2
CDH1,P12830,CDH1,ENSG3
CDH1,P12830,CDH1,ENSG4
ITGA2,P17301,ITGA2,ENSG5
ITGB1,P05556,ITGB1,ENSG6
GJA1,P17302,GJA1,ENSG7
GAD1,Q99259,GAD1,ENSG8
""",
    "complex_input.csv": """complex_name,uniprot_1,uniprot_2,uniprot_3,uniprot_4,uniprot_5
"integrin, a2b1",P17301,P05556,,,
GABA_byGAD1,Q99259,,,,
""",
}
BIOGRID_HEADER = (
    "#BioGRID Interaction ID\tSystematic Name Interactor A\tOfficial Symbol Interactor A\tOfficial Symbol Interactor B"
    "\tExperimental System\tExperimental System Type\tAuthor\tOrganism ID Interactor A\tOrganism ID Interactor B\n"
)
MITAB_HEADER = (
    "#ID(s) interactor A\tID(s) interactor B\tAlt. ID(s) interactor A\tAlt. ID(s) interactor B\tAlias(es) interactor A"
    "\tAlias(es) interactor B\tInteraction detection method(s)\tPublication 1st author(s)\tPublication Identifier(s)\t"
    "Taxid interactor A\tTaxid interactor B\tInteraction type(s)\tSource database(s)\tInteraction identifier(s)\t"
    "Confidence value(s)\tNegative\n"
)


@pytest.fixture
def write(tmp_path):
    """Function that writes a file and returns its path."""

    def to(name: str, content: str) -> Path:
        (tmp_path / name).write_text(content, "utf-8", newline="")
        return tmp_path / name

    return to


@pytest.fixture
def cellphonedb(write) -> Path:
    paths = [write(name, content) for name, content in CELLPHONEDB.items()]
    return paths[0]


def mitab_line(alias_a: str, alias_b: str, taxa: str = "9606", kind: str = "physical association", negative: str = "-"):
    alternatives = "biogrid:1|entrez gene/locuslink:{}" if not alias_a else "intact:EBI-{}"
    ids = f"uniprotkb:P1\tuniprotkb:P2\t{alternatives.format('LOCUS1')}\t{alternatives.format('LOCUS2')}"
    taxid = f'taxid:{taxa}(human)|taxid:{taxa}("Homo sapiens")'
    kinds = f'psi-mi:"MI:0915"({kind})'
    return f"{ids}\t{alias_a or '-'}\t{alias_b or '-'}\tx\tx\tx\t{taxid}\t{taxid}\t{kinds}\tx\tx\tx\t{negative}\n"


class TestGeneSets:
    def test_sets_of_a_file(self, write):
        assert read_gene_sets([write("sets.gmt", GMT)]) == [
            GeneSet("interferon alpha response (hallmark)", "", "sets.gmt", ("IFIT1", "IRF7")),
            GeneSet("mTOR signaling pathway (KEGG)", "", "sets.gmt", ("MTOR", "AKT1")),
            GeneSet("CD4 Naive", "naive T cells (see http://x)", "sets.gmt", ("CCR7", "SELL")),
        ]

    def test_sets_of_several_files_are_there_once(self, write):
        mouse = GMT.replace("IFIT1", "Ifit1").replace("SELL", "Lef1")
        sets = read_gene_sets([write("a.gmt", GMT), write("b.gmt", mouse)])
        assert [(s.name, s.source) for s in sets[3:]] == [("CD4 Naive", "b.gmt")]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("HALLMARK_TNFA_SIGNALING_VIA_NFKB", "TNFA signaling via NFKB (hallmark)"),
            ("HALLMARK_UV_RESPONSE_DN", "UV response down (hallmark)"),
            ("HALLMARK_G2M_CHECKPOINT", "G2M checkpoint (hallmark)"),
            ("BIOCARTA_LYM_PATHWAY", "lym pathway (BioCarta)"),
            ("PID_IL4_2PATHWAY", "IL4 2 pathway (PID)"),
            ("REACTOME_SIGNALING_BY_NODAL", "signaling by NODAL (Reactome)"),
            ("REACTOME_VIRAL_MRNA_TRANSLATION", "viral mRNA translation (Reactome)"),
            ("KEGG_MEDICUS_REFERENCE_AUTOPHAGY", "reference autophagy (KEGG MEDICUS)"),
            ("KEGG_LYSOSOME", "lysosome (KEGG)"),
            ("GOBP_B_CELL_ACTIVATION", "B cell activation (GO process)"),
            ("WP_VITAMIN_D_METABOLISM", "vitamin D metabolism (WikiPathways)"),
            ("SMC", "SMC"),
            ("KEGG", "KEGG"),
            ("hallmark_like", "hallmark like"),
            ("GSE10239_NAIVE_VS_MEMORY_UP", "GSE10239 NAIVE VS MEMORY UP"),
            ("Skeletal  muscle cells", "Skeletal muscle cells"),
        ],
    )
    def test_names(self, name, text):
        assert readable_name(name, frozenset({"NODAL"})) == text

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            ("ONLY_A_NAME\n", r"sets\.gmt, line 5: expected name, description and genes.*'ONLY_A_NAME'"),
            ("NAME\tabout\t\t\n", "line 5: expected name"),
            ("\tabout\tA\tB\n", "line 5: expected name"),
            ("NAME\tabout\tA, B\n", "line 5, set 'NAME': 'A, B' is no gene symbol; separate genes by tabs"),
        ],
    )
    def test_bad_line_is_named(self, write, bad, message):
        with pytest.raises(KnowledgeError, match=message):
            read_gene_sets([write("sets.gmt", GMT + bad)])

    def test_file_without_sets(self, write):
        with pytest.raises(KnowledgeError, match="holds no gene set"):
            read_gene_sets([write("sets.gmt", "\n")])
        with pytest.raises(FileNotFoundError):
            read_gene_sets(["absent.gmt"])


@pytest.mark.parametrize(("suffix", "opener"), [(".gz", gzip.open), (".bz2", bz2.open), (".xz", lzma.open)])
def test_compressed(tmp_path, write, suffix, opener):
    with opener(tmp_path / f"sets.gmt{suffix}", "wt") as file:
        file.write(GMT)
    packed = read_gene_sets([tmp_path / f"sets.gmt{suffix}"])
    assert [s.genes for s in packed] == [s.genes for s in read_gene_sets([write("sets.gmt", GMT)])]
    (tmp_path / f"broken.gmt{suffix}").write_bytes(b"\x01\x02 not compressed")
    with pytest.raises(KnowledgeError, match="not compressed as its name says"):
        read_gene_sets([tmp_path / f"broken.gmt{suffix}"])


def test_zip_of_one_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "sets.zip", "w") as archive:
        archive.writestr("sets.gmt", "﻿" + GMT)  # Windows programs put a byte order mark first
    assert read_gene_sets([tmp_path / "sets.zip"])[0].name == "interferon alpha response (hallmark)"
    with zipfile.ZipFile(tmp_path / "sets.zip", "a") as archive:
        archive.writestr("more.gmt", GMT)
    with pytest.raises(KnowledgeError, match="holds 2 files"):
        read_gene_sets([tmp_path / "sets.zip"])


def test_not_text(tmp_path):
    (tmp_path / "sets.gmt").write_bytes("Häm\tx\tHBB\n".encode("latin-1"))
    with pytest.raises(KnowledgeError, match=r"sets\.gmt: not UTF-8 text"):
        read_gene_sets([tmp_path / "sets.gmt"])


class TestCellPhoneDB:
    def test_kinds_and_complexes(self, cellphonedb):
        source = "CellPhoneDB"
        assert read_interactions([cellphonedb]) == [
            Interaction(source, "ligand-receptor", ("CXCL12",), ("CXCR4",)),
            Interaction(source, "adhesion", ("CDH1",), ("ITGA2", "ITGB1")),
            Interaction(source, "enzyme-receptor", ("GAD1",), ("CXCR4",)),
            Interaction(source, "gap junction", ("GJA1",), ("GJA1",)),
        ]

    @pytest.mark.parametrize(
        ("name", "line", "message"),
        [
            ("interaction_input.csv", ",P99999,P61073,True,Ligand-Receptor\n", r"line 7: 'P99999' is neither in gene_"),
            ("interaction_input.csv", ",P48061,P61073,True,Upwards\n", "line 7: directionality 'Upwards'; known are"),
            ("interaction_input.csv", ",P48061,P61073\n", "line 7: 3 fields, the header has 5; correct or remove"),
            ("complex_input.csv", "new,P17301,P00000,,,\n", "complex_input.csv, line 4: protein P00000 of new is not"),
        ],
    )
    def test_bad_line_is_named(self, write, cellphonedb, name, line, message):
        write(name, CELLPHONEDB[name] + line)
        with pytest.raises(KnowledgeError, match=message):
            read_interactions([cellphonedb])

    def test_tables_beside(self, cellphonedb):
        cellphonedb.with_name("gene_input.csv").unlink()
        with pytest.raises(KnowledgeError, match=r"interaction_input\.csv needs gene_input\.csv"):
            read_interactions([cellphonedb])


class TestOtherDatabases:
    def test_cellchat_version_1(self, write):
        rows = '"","interaction_name","ligand","receptor"\n"1","x","TGFB1","TGFbR1_R2"\n"2","y","IL12AB","CD4"\n'
        path = write("interaction.csv", rows)
        with pytest.raises(KnowledgeError, match=r"needs complex\.csv"):
            read_interactions([path])
        write(
            "complex.csv",
            '"","subunit_1","subunit_2","subunit_3"\n"TGFbR1_R2","TGFBR1","TGFBR2",""\n"IL12AB","IL12A","IL12B",""\n',
        )
        assert [(x.a, x.b) for x in read_interactions([path])] == [
            (("TGFB1",), ("TGFBR1", "TGFBR2")),
            (("IL12A", "IL12B"), ("CD4",)),
        ]

    def test_cellchat_version_2(self, write):
        header = "interaction_name,ligand,receptor,ligand.symbol,receptor.symbol\n"
        path = write("v2.csv", header + 'x,TGFB1,TGFbR1_R2,TGFB1,"TGFBR1, TGFBR2"\n')
        assert [(x.source, x.a, x.b) for x in read_interactions([path])] == [
            ("CellChat", ("TGFB1",), ("TGFBR1", "TGFBR2"))
        ]
        write("v2.csv", header + "x,TGFB1,R,TGFB1,R\ny,A,B,,B\n")
        with pytest.raises(KnowledgeError, match=r"v2\.csv, line 3: no ligand\.symbol"):
            read_interactions([path])

    def test_liana_resources(self, write):
        path = write(
            "omni.csv",
            '"","source_genesymbol","target_genesymbol","resource"\n'
            '"1","NRG2","ERBB2_ERBB3","consensus"\n"2","Nrg2","Erbb4","mouseconsensus"\n',
        )
        assert read_interactions([path]) == [
            Interaction("LIANA consensus", "ligand-receptor", ("NRG2",), ("ERBB2", "ERBB3"))
        ]
        assert read_interactions([f"{path}:mouseconsensus"])[0].b == ("ERBB4",)
        with pytest.raises(KnowledgeError, match="no resource 'x'; it has consensus, mouseconsensus"):
            read_interactions([f"{path}:x"])

    def test_plain_pairs(self, write):
        path = write("mine.tsv", "ligand\treceptor\nCxcl12\tCxcr4\nTGFB1\tTGFBR1+TGFBR2\n")
        assert read_interactions([path]) == [
            Interaction("mine", "ligand-receptor", ("CXCL12",), ("CXCR4",)),
            Interaction("mine", "ligand-receptor", ("TGFB1",), ("TGFBR1", "TGFBR2")),
        ]

    def test_biogrid(self, write):
        rows = [
            '1\t"odd name\tMAP2K4\tFLNC\tTwo-hybrid\tphysical\tx\t9606\t9606',
            "2\t-\tFlnc\tMap2k4\tTwo-hybrid\tphysical\tx\t10090\t10090",
            "3\t-\tAKT1\tTP53\tDosage Rescue\tgenetic\tx\t9606\t9606",
            "4\t-\tCDC28\tCLN2\tTwo-hybrid\tphysical\tx\t559292\t559292",
            "5\t-\tAKT1\tAkt1\tTwo-hybrid\tphysical\tx\t9606\t10090",
            "6\t-\t-\tAKT1\tTwo-hybrid\tphysical\tx\t9606\t9606",
            "7\t-\tTP53\tMDM2\tTwo-hybrid\tphysical\tx\t9606\t9606",
        ]
        path = write("BIOGRID.tab3.txt", BIOGRID_HEADER + "\n".join(rows) + "\n")
        assert read_interactions([path]) == [
            Interaction("BioGRID", "physical", ("FLNC",), ("MAP2K4",)),
            Interaction("BioGRID", "physical", ("MDM2",), ("TP53",)),
        ]
        write("BIOGRID.tab3.txt", BIOGRID_HEADER + "\n".join([*rows, "8\tcut off"]) + "\n")
        with pytest.raises(KnowledgeError, match="line 9: 2 fields, the header has 9"):
            read_interactions([path])

    def test_mitab(self, write):
        gene = "psi-mi:x_human(display_long)|uniprotkb:{0}(gene name)|psi-mi:short{0}(display_short)"
        lines = [
            mitab_line(gene.format("SYNJ1"), gene.format("AMPH")),
            mitab_line("psi-mi:DNM1(display_short)", 'uniprotkb:"SH3"(gene name)'),
            mitab_line("", ""),
            mitab_line(gene.format("A"), gene.format("B"), taxa="559292"),
            mitab_line(gene.format("C"), gene.format("D"), kind="genetic interaction"),
            mitab_line(gene.format("E"), gene.format("F"), negative="true"),
            mitab_line(gene.format("G"), "uniprotkb:P3(synonym)"),
        ]
        path = write("intact.mitab.txt", MITAB_HEADER + "".join(lines))
        assert [(x.source, x.kind, x.a, x.b) for x in read_interactions([path])] == [
            ("intact", "physical", ("AMPH",), ("SYNJ1",)),
            ("intact", "physical", ("DNM1",), ("SH3",)),
            ("intact", "physical", ("LOCUS1",), ("LOCUS2",)),
        ]
        write("intact.mitab.txt", MITAB_HEADER + mitab_line("x:y(synonym)", "x:z(synonym)"))
        with pytest.raises(KnowledgeError, match="no interactor has a gene name"):
            read_interactions([path])

    def test_unknown_format(self, write):
        with pytest.raises(KnowledgeError, match=r"odd\.csv is of no known format.*partner_a.*LIANA"):
            read_interactions([write("odd.csv", "A,B\n1,2\n")])
        with pytest.raises(KnowledgeError, match=r"write\.csv"):
            read_interactions([write("CellChatDB.human.rda", "x")])
        with pytest.raises(KnowledgeError, match="no header"):
            read_interactions([write("empty.csv", "")])
        with pytest.raises(FileNotFoundError, match=r"absent\.csv"):
            read_interactions(["absent.csv"])


def test_first_source_of_an_interaction_counts(write, cellphonedb):
    same = write("mine.csv", "ligand,receptor\nCXCL12,CXCR4\nCXCR4,CXCL12\n")
    found = read_interactions([cellphonedb, same])
    assert Counter(x.source for x in found) == {"CellPhoneDB": 4, "mine": 1}
    assert found[-1].a == ("CXCR4",), "ligand and receptor are not interchangeable"
    swapped = write("complexes.csv", "ligand,receptor\nTGFB1,TGFBR1_TGFBR2\nTGFB1,TGFBR2_TGFBR1\n")
    assert [x.b for x in read_interactions([swapped])] == [("TGFBR1", "TGFBR2")]


@pytest.mark.parametrize(
    "content", ["cxcl12\n\nCXCR4\nGJA1\n", "hgnc_id\tsymbol\tname\nHGNC:1\tCXCL12\t\nHGNC:2\tCXCR4\tx\n3\tGJA1\t\n"]
)
def test_extracellular_genes_only(write, cellphonedb, content):
    path = write("extracellular.txt", content)
    assert read_extracellular(path) == {"CXCL12", "CXCR4", "GJA1"}
    assert [x.a for x in read_interactions([cellphonedb], extracellular=path)] == [("CXCL12",), ("GJA1",)]


def test_unusable_list_of_extracellular_genes(write):
    with pytest.raises(KnowledgeError, match="none of its columns is named symbol"):
        read_extracellular(write("a.csv", "id,protein\n1,2\n"))
    with pytest.raises(KnowledgeError, match="line 2: 'CD4 CD8' is no gene symbol"):
        read_extracellular(write("b.txt", "CXCL12\nCD4 CD8\n"))


@pytest.mark.skipif("C2S_DATA" not in os.environ, reason="needs the real databases: set C2S_DATA to their folder")
def test_real_databases():
    folder = Path(os.environ["C2S_DATA"])
    found = read_interactions([folder / "lr_cellphonedb" / "interaction_input.csv"])
    assert len(found) > 2800
    assert Interaction("CellPhoneDB", "ligand-receptor", ("CXCL12",), ("CXCR4",)) in found
    assert all(gene == gene.upper() and len(gene.split()) == 1 for x in found for gene in x.a + x.b)
    sets = {s.name: s for s in read_gene_sets(sorted((folder / "genesets_msigdb").glob("h.all*.gmt")))}
    assert len(sets) == 50
    assert len(sets["interferon alpha response (hallmark)"].genes) == 97
